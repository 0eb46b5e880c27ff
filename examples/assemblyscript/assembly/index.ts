// Refuses the paths below /private, and says on every response who served it: a plugin in AssemblyScript.

import { Action, Level, Map, addHeader, header, log, respond } from "./abi";

export { proxy_abi_version_0_2_1, proxy_on_memory_allocate } from "./abi";

export function proxy_on_vm_start(context: u32, size: u32): bool {
  return true;
}

// It has nothing to configure: whoever configures it means another plugin.
export function proxy_on_configure(context: u32, size: u32): bool {
  if (size == 0) return true;
  log(Level.Error, "configuration rejected: there is nothing to configure");
  return false;
}

export function proxy_on_context_create(context: u32, parent: u32): void {}

export function proxy_on_request_headers(context: u32, headers: u32, end: u32): Action {
  const path = header(Map.Request, ":path");
  // A request without a path is none that can be judged.
  if (path === null || path.startsWith("/private")) {
    respond(403, "private_path", "not yours\n");
    return Action.Pause;
  }
  return Action.Continue;
}

export function proxy_on_response_headers(context: u32, headers: u32, end: u32): Action {
  if (!addHeader(Map.Response, "x-served-by", "assemblyscript")) log(Level.Error, "x-served-by not added");
  return Action.Continue;
}

export function proxy_on_done(context: u32): bool {
  return true;
}

export function proxy_on_log(context: u32): void {}

export function proxy_on_delete(context: u32): void {}
