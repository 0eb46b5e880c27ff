// Tags requests with a header and responses with what the request was for: a plugin in Go.
package main

import (
	"encoding/json"
	"fmt"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

// A module is a library: what the host calls are its exports, and nothing is left to do here.
func main() {}

func init() {
	proxywasm.SetVMContext(&vm{})
}

type vm struct {
	types.DefaultVMContext
}

func (*vm) NewPluginContext(uint32) types.PluginContext {
	return &plugin{}
}

// config is what config.schema.json says.
type config struct {
	Tag string `json:"tag"`
}

type plugin struct {
	types.DefaultPluginContext
	config config
}

func (p *plugin) OnPluginStart(size int) types.OnPluginStartStatus {
	text, err := proxywasm.GetPluginConfiguration()
	if err == nil {
		err = json.Unmarshal(text, &p.config)
	}
	if err == nil && p.config.Tag == "" {
		err = fmt.Errorf("tag: is missing")
	}
	if err != nil {
		proxywasm.LogErrorf("configuration rejected: %v", err)
		return types.OnPluginStartStatusFailed
	}
	return types.OnPluginStartStatusOK
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext {
	return &stream{tag: p.config.Tag}
}

type stream struct {
	types.DefaultHttpContext
	tag  string
	path string
}

func (s *stream) OnHttpRequestHeaders(int, bool) types.Action {
	s.path, _ = proxywasm.GetHttpRequestHeader(":path")
	if err := proxywasm.ReplaceHttpRequestHeader("x-tag", s.tag); err != nil {
		proxywasm.LogErrorf("x-tag not set: %v", err)
	}
	return types.ActionContinue
}

func (s *stream) OnHttpResponseHeaders(int, bool) types.Action {
	if err := proxywasm.AddHttpResponseHeader("x-served", s.path); err != nil {
		proxywasm.LogErrorf("x-served not added: %v", err)
	}
	return types.ActionContinue
}
