// KEDA's side of an external scaler, with the stubs of KEDA's own module: what the tests of the scaler want to see from there. Prints a JSON object
// a line.
//
//	keda every   ADDRESS            each RPC in every order on one connection
//	keda cancel  ADDRESS            calls and streams that are cancelled at every moment
//	keda deadline ADDRESS           deadlines that have passed, pass at once, and do not pass
//	keda many    ADDRESS            -n streams of each kind and polls for as many ScaledObjects, until stdin ends
//	keda push    ADDRESS            what comes on a StreamIsActive of -function, with the time it came, until it ends or stdin does
//	keda load    ADDRESS            calls on a connection that stays and on new ones, until stdin ends
//	keda serve                      the same service by grpc-go, whose port is printed: a peer to measure against
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

var (
	flags     = flag.NewFlagSet("keda", flag.ExitOnError)
	function  = flags.String("function", "echo", "the bot that is asked about")
	number    = flags.Int("n", 1000, "how many ScaledObjects")
	caFile    = flags.String("ca", "", "TLS, and whose certificates are believed")
	certFile  = flags.String("cert", "", "the client's certificate")
	keyFile   = flags.String("key", "", "and its key")
	tokenFile = flags.String("token-file", "", "a bearer token, read for each call")
	again     = flags.Bool("again", false, "open what is pushed again when it ends")
	interval  = flags.Duration("interval", 30*time.Second, "between two polls of a ScaledObject")
)

func say(what any) {
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func fail(err error) {
	say(map[string]any{"error": err.Error(), "code": status.Code(err).String()})
	os.Exit(1)
}

// ---- the connection, as KEDA makes it ----

func credentialsOf() credentials.TransportCredentials {
	if *caFile == "" {
		return insecure.NewCredentials()
	}
	ca, err := os.ReadFile(*caFile)
	if err != nil {
		fail(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	config.RootCAs.AppendCertsFromPEM(ca)
	if *certFile != "" {
		pair, err := tls.LoadX509KeyPair(*certFile, *keyFile)
		if err != nil {
			fail(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config)
}

func connect(address string) (*grpc.ClientConn, pb.ExternalScalerClient) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentialsOf()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin":{}}]}`))
	if err != nil {
		fail(err)
	}
	return conn, pb.NewExternalScalerClient(conn)
}

func background() context.Context {
	if *tokenFile == "" {
		return context.Background()
	}
	token, err := os.ReadFile(*tokenFile)
	if err != nil {
		fail(err)
	}
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+strings.TrimSpace(string(token)))
}

func refOf(name string) *pb.ScaledObjectRef {
	return &pb.ScaledObjectRef{Name: name, Namespace: "bots", ScalerMetadata: map[string]string{
		"scalerAddress": "balm.balm.svc:9091", "function": name, "targetSize": "5"}}
}

func untilStdinEnds() context.Context {
	ctx, cancel := context.WithCancel(background())
	go func() {
		for in := bufio.NewReader(os.Stdin); ; {
			if _, err := in.ReadByte(); err != nil {
				cancel()
				return
			}
		}
	}()
	return ctx
}

// ---- each RPC ----

func isActive(ctx context.Context, c pb.ExternalScalerClient, name string) error {
	_, err := c.IsActive(ctx, refOf(name))
	return err
}

func getMetricSpec(ctx context.Context, c pb.ExternalScalerClient, name string) error {
	answer, err := c.GetMetricSpec(ctx, refOf(name))
	if err == nil {
		err = checkSpecs(answer, name)
	}
	return err
}

func checkSpecs(answer *pb.GetMetricSpecResponse, name string) error {
	specs := answer.GetMetricSpecs()
	if len(specs) != 1 || specs[0].GetMetricName() != "balm-"+name || specs[0].GetTargetSize() != 5 || specs[0].GetTargetSizeFloat() != 5 {
		return fmt.Errorf("specs are %v", specs)
	}
	return nil
}

func getMetrics(ctx context.Context, c pb.ExternalScalerClient, name string) error {
	answer, err := c.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: refOf(name), MetricName: "balm-" + name})
	if err != nil {
		return err
	}
	values := answer.GetMetricValues()
	if len(values) != 1 || values[0].GetMetricName() != "balm-"+name || float64(values[0].GetMetricValue()) != values[0].GetMetricValueFloat() {
		return fmt.Errorf("values are %v", values)
	}
	return nil
}

// Opened and cancelled: nothing may come but the end.
func streamIsActive(ctx context.Context, c pb.ExternalScalerClient, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	stream, err := c.StreamIsActive(ctx, refOf(name))
	if err == nil {
		_, err = stream.Recv()
	}
	if code := status.Code(err); code == codes.DeadlineExceeded || code == codes.Canceled {
		return nil
	}
	return fmt.Errorf("StreamIsActive: %w", err)
}

// The specs come at once, and then nothing.
func streamMetricSpec(ctx context.Context, c pb.ExternalScalerClient, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.StreamMetricSpec(ctx, refOf(name))
	if err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	return checkSpecs(answer, name)
}

type rpc func(context.Context, pb.ExternalScalerClient, string) error

var rpcs = []rpc{isActive, getMetricSpec, getMetrics, streamIsActive, streamMetricSpec}

func inEveryOrder(order []int, at int, try func([]int)) {
	if at == len(order) {
		try(order)
		return
	}
	for i := at; i < len(order); i++ {
		order[at], order[i] = order[i], order[at]
		inEveryOrder(order, at+1, try)
		order[at], order[i] = order[i], order[at]
	}
}

func every(address string) {
	conn, c := connect(address)
	defer conn.Close()
	orders, calls, failures := 0, 0, []string{}
	inEveryOrder([]int{0, 1, 2, 3, 4}, 0, func(order []int) {
		orders++
		for _, i := range order {
			calls++
			if err := rpcs[i](background(), c, *function); err != nil {
				failures = append(failures, err.Error())
			}
		}
	})
	say(map[string]any{"orders": orders, "calls": calls, "failures": failures})
}

// ---- cancelling, deadlines ----

func cancelAfter(c pb.ExternalScalerClient, call rpc, after time.Duration) error {
	ctx, cancel := context.WithCancel(background())
	timer := time.AfterFunc(after, cancel)
	defer timer.Stop()
	defer cancel()
	err := call(ctx, c, *function)
	if status.Code(err) == codes.Canceled {
		return nil
	}
	return err
}

func cancelAll(address string) {
	conn, c := connect(address)
	defer conn.Close()
	var wait sync.WaitGroup
	var lock sync.Mutex
	calls, failures := 0, []string{}
	for after := time.Duration(0); after < 2*time.Millisecond; after += 20 * time.Microsecond {
		for _, call := range rpcs {
			calls++
			wait.Add(1)
			go func() {
				defer wait.Done()
				if err := cancelAfter(c, call, after); err != nil {
					lock.Lock()
					failures = append(failures, err.Error())
					lock.Unlock()
				}
			}()
		}
		wait.Wait()
	}
	if err := getMetrics(background(), c, *function); err != nil { // the connection is as good as before
		failures = append(failures, err.Error())
	}
	say(map[string]any{"calls": calls, "failures": failures})
}

func deadlines(address string) {
	conn, c := connect(address)
	defer conn.Close()
	got := map[string]string{}
	for _, timeout := range []time.Duration{-1, 1, time.Microsecond, time.Hour * 24 * 365 * 100, 10 * time.Second} {
		ctx, cancel := context.WithTimeout(background(), timeout)
		_, err := c.GetMetricSpec(ctx, refOf(*function))
		got[timeout.String()] = status.Code(err).String()
		cancel()
	}
	ctx, cancel := context.WithTimeout(background(), 300*time.Millisecond)
	defer cancel()
	stream, err := c.StreamIsActive(ctx, refOf(*function))
	if err == nil {
		_, err = stream.Recv()
	}
	got["stream"] = status.Code(err).String()
	say(got)
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		serve()
		return
	}
	commands := map[string]func(string){"every": every, "cancel": cancelAll, "deadline": deadlines, "many": many, "push": push, "load": load}
	if len(os.Args) < 3 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "keda every|cancel|deadline|many|push|load ADDRESS [flags], or keda serve")
		os.Exit(2)
	}
	_ = flags.Parse(os.Args[3:])
	commands[os.Args[1]](os.Args[2])
}
