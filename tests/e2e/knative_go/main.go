// What Knative's admission webhook does with Services: defaults, then validation, with Knative's own code. stdin: YAML documents;
// stdout: a line "NAME: ok", "NAME: ok, but what it warns of" or "NAME: what is wrong" for each. Unknown members are wrong.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"knative.dev/pkg/apis"
	v1 "knative.dev/serving/pkg/apis/serving/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		var service v1.Service
		if err := yaml.UnmarshalStrict(text, &service); err != nil {
			fmt.Printf("%s: %v\n", service.Name, err)
			continue
		}
		if len(bytes.TrimSpace(text)) == 0 || service.Kind == "" {
			continue
		}
		ctx := apis.WithinCreate(context.Background())
		service.SetDefaults(ctx)
		found := service.Validate(ctx)
		if wrong := found.Filter(apis.ErrorLevel); wrong != nil {
			fmt.Printf("%s: %v\n", service.Name, wrong)
		} else if warned := found.Filter(apis.WarningLevel); warned != nil {
			fmt.Printf("%s: ok, but %v\n", service.Name, warned)
		} else {
			fmt.Printf("%s: ok\n", service.Name)
		}
	}
}
