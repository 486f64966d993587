// stowage-controlplane is kube-apiserver, kube-controller-manager, kube-scheduler, etcd and kubectl in one file.
//
// One static file is one build and one cache entry, yet each component still runs as its own process, so a
// fault test can kill and restart any one of them. The component is chosen by the name the file is called by,
// or by the first argument.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// commands are built on demand: each constructor registers flags and metrics that the others must not see.
var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
}

func main() {
	args := os.Args
	if !known(filepath.Base(args[0])) {
		args = args[1:]
	}
	if len(args) == 0 || !known(filepath.Base(args[0])) {
		fmt.Fprintln(os.Stderr, "usage: stowage-controlplane "+
			"{etcd | kube-apiserver | kube-controller-manager | kube-scheduler | kubectl} [flags]")
		os.Exit(2)
	}
	name := filepath.Base(args[0])
	os.Args = append([]string{name}, args[1:]...)
	if name == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	command := commands[name]()
	if name == "kubectl" {
		if err := cli.RunNoErrOutput(command); err != nil {
			util.CheckErr(err)
		}
		return
	}
	os.Exit(cli.Run(command))
}

func known(name string) bool {
	_, found := commands[name]
	return found || name == "etcd"
}
