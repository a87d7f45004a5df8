package main

import (
	"context"
	"fmt"
	"net"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// As little as an external scaler can do: what is measured is grpc-go.
type scaler struct {
	pb.UnimplementedExternalScalerServer
}

func functionOf(ref *pb.ScaledObjectRef) (string, error) {
	name := ref.GetScalerMetadata()["function"]
	if name == "" {
		return "", status.Error(codes.InvalidArgument, "metadata function is needed")
	}
	return name, nil
}

func (scaler) IsActive(_ context.Context, ref *pb.ScaledObjectRef) (*pb.IsActiveResponse, error) {
	_, err := functionOf(ref)
	return &pb.IsActiveResponse{}, err
}

func (scaler) GetMetricSpec(_ context.Context, ref *pb.ScaledObjectRef) (*pb.GetMetricSpecResponse, error) {
	name, err := functionOf(ref)
	return &pb.GetMetricSpecResponse{MetricSpecs: []*pb.MetricSpec{{MetricName: "balm-" + name, TargetSize: 10, TargetSizeFloat: 10}}}, err
}

func (scaler) GetMetrics(_ context.Context, request *pb.GetMetricsRequest) (*pb.GetMetricsResponse, error) {
	_, err := functionOf(request.GetScaledObjectRef())
	return &pb.GetMetricsResponse{MetricValues: []*pb.MetricValue{{MetricName: request.GetMetricName()}}}, err
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	server := grpc.NewServer()
	pb.RegisterExternalScalerServer(server, scaler{})
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); err != nil {
		fail(err)
	}
}
