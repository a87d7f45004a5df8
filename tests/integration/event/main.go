// Sends CloudEvents with the CNCF's own SDK for Go, the one that Knative's brokers and sources send with: event URL MODE < EVENTS, where MODE is
// binary, structured or batch and EVENTS is a JSON array of events. The bearer token is in TOKEN. Prints one line an answer: its status and
// whether the SDK takes it for an ack, a nack or undelivered.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/protocol"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

func verdict(err error) string {
	var result *cehttp.Result
	status := 0
	if errors.As(err, &result) {
		status = result.StatusCode
	}
	switch {
	case protocol.IsACK(err):
		return fmt.Sprintf("%d ack", status)
	case protocol.IsNACK(err):
		return fmt.Sprintf("%d nack", status)
	}
	return fmt.Sprintf("%d undelivered", status)
}

func sendBatch(url, token string, events []event.Event) error {
	request, err := cehttp.NewHTTPRequestFromEvents(context.Background(), url, events)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	fmt.Println(response.StatusCode)
	return err
}

func run(url, mode string) error {
	var events []event.Event
	token := "Bearer " + os.Getenv("TOKEN")
	if err := json.NewDecoder(os.Stdin).Decode(&events); err != nil {
		return err
	}
	if mode == "batch" {
		return sendBatch(url, token, events)
	}
	client, err := cloudevents.NewClientHTTP(cehttp.WithTarget(url), cehttp.WithHeader("Authorization", token))
	if err != nil {
		return err
	}
	ctx := binding.WithForceBinary(context.Background())
	if mode == "structured" {
		ctx = binding.WithForceStructured(context.Background())
	}
	for _, e := range events {
		fmt.Println(verdict(client.Send(ctx, e)))
	}
	return nil
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "event:", err)
		os.Exit(1)
	}
}
