// Istio-fetch fetches a Wasm module with the code of Istio's agent, to compare Plugwright with.
//
//	istio-fetch URL FILE [SHA256]
package main

import (
	"fmt"
	"os"
	"time"

	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/util/sets"
	"istio.io/istio/pkg/wasm"
)

func main() {
	if err := fetch(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fetch(args []string) error {
	if len(args) < 2 || len(args) > 3 {
		return fmt.Errorf("usage: istio-fetch URL FILE [SHA256]")
	}
	options := wasm.GetOptions{RequestTimeout: 20 * time.Second, PullSecret: []byte(`{"auths":{}}`)}
	if len(args) == 3 {
		options.Checksum = args[2]
	}
	if secret := os.Getenv("PULL_SECRET"); secret != "" {
		options.PullSecret = []byte(secret)
	}
	// Standard output is for data, and the agent's log is neither data nor an error.
	logging := log.DefaultOptions()
	logging.OutputPaths = []string{os.DevNull}
	if err := log.Configure(logging); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "istio-fetch")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	cache := wasm.NewLocalFileCache(folder, wasm.Options{InsecureRegistries: sets.New("*"), HTTPRequestMaxRetries: 1})
	module, err := cache.Get(args[0], options)
	if err != nil {
		return err
	}
	return os.Rename(module, args[1])
}
