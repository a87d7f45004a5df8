// Sends CloudEvents with Go's SDK and reads the replies with it: events URL binary|structured|batch.
// stdin: [{"attributes": {...}, "data_base64": "..."}]; stdout: [{"status": 200, "events": [the same], "error": "..."}], one for each request.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/cloudevents/sdk-go/v2/types"
)

type plain struct {
	Attributes map[string]string `json:"attributes"`
	Data       []byte            `json:"data_base64"`
}

type answer struct {
	Status int     `json:"status"`
	Events []plain `json:"events"`
	Error  string  `json:"error"`
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func toEvent(p plain) event.Event {
	e := event.New()
	contentType := ""
	for name, value := range p.Attributes {
		switch name {
		case "id":
			e.SetID(value)
		case "source":
			e.SetSource(value)
		case "type":
			e.SetType(value)
		case "subject":
			e.SetSubject(value)
		case "dataschema":
			e.SetDataSchema(value)
		case "datacontenttype":
			contentType = value
		case "specversion":
			e.SetSpecVersion(value)
		case "time":
			t, err := types.ParseTime(value)
			check(err)
			e.SetTime(t)
		default:
			e.SetExtension(name, value)
		}
	}
	if p.Data != nil {
		check(e.SetData(contentType, p.Data))
	}
	check(e.Validate())
	return e
}

func fromEvent(e event.Event) plain {
	p := plain{map[string]string{"id": e.ID(), "source": e.Source(), "type": e.Type(), "specversion": e.SpecVersion(),
		"subject": e.Subject(), "datacontenttype": e.DataContentType(), "time": types.FormatTime(e.Time())}, e.Data()}
	for name, value := range e.Extensions() {
		text, err := types.Format(value)
		check(err)
		p.Attributes[name] = text
	}
	return p
}

func ask(request *http.Request) (a answer) {
	a.Events = []plain{}
	request.Header.Set("Prefer", "reply")
	response, err := http.DefaultClient.Do(request)
	check(err)
	defer response.Body.Close()
	a.Status = response.StatusCode
	if response.StatusCode != http.StatusOK {
		return a
	}
	var events []event.Event
	if cehttp.IsHTTPBatch(response.Header) {
		events, err = cehttp.NewEventsFromHTTPResponse(response)
	} else {
		var one *event.Event
		one, err = cehttp.NewEventFromHTTPResponse(response)
		if err == nil {
			events = append(events, *one)
		}
	}
	if err != nil {
		a.Error = err.Error()
		return a
	}
	for _, e := range events {
		if err := e.Validate(); err != nil {
			a.Error = err.Error()
		}
		a.Events = append(a.Events, fromEvent(e))
	}
	return a
}

func main() {
	url, mode := os.Args[1], os.Args[2]
	var given []plain
	check(json.NewDecoder(os.Stdin).Decode(&given))
	var events []event.Event
	for _, p := range given {
		events = append(events, toEvent(p))
	}
	answers := []answer{}
	if mode == "batch" {
		request, err := cehttp.NewHTTPRequestFromEvents(context.Background(), url, events)
		check(err)
		answers = append(answers, ask(request))
	} else {
		for i := range events {
			request, err := http.NewRequest(http.MethodPost, url, new(bytes.Buffer))
			check(err)
			ctx := binding.WithForceBinary(context.Background())
			if mode == "structured" {
				ctx = binding.WithForceStructured(context.Background())
			}
			check(cehttp.WriteRequest(ctx, binding.ToMessage(&events[i]), request))
			answers = append(answers, ask(request))
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(answers))
}
