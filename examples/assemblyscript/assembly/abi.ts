// The part of the proxy-wasm ABI 0.2.1 that the plugin uses, by the specification's names.

@external("env", "proxy_log")
declare function proxy_log(level: u32, message: usize, size: usize): u32;
@external("env", "proxy_get_header_map_value")
declare function proxy_get_header_map_value(map: u32, key: usize, keySize: usize, value: usize, valueSize: usize): u32;
@external("env", "proxy_add_header_map_value")
declare function proxy_add_header_map_value(map: u32, key: usize, keySize: usize, value: usize, valueSize: usize): u32;
@external("env", "proxy_send_local_response")
declare function proxy_send_local_response(
  status: u32, details: usize, detailsSize: usize, body: usize, bodySize: usize, headers: usize, headersSize: usize, grpc: i32,
): u32;

export enum Map {
  Request = 0,
  Response = 2,
}

export enum Level {
  Info = 2,
  Error = 4,
}

// What a callback about headers returns.
export enum Action {
  Continue = 0,
  Pause = 1,
}

const OK: u32 = 0;

function address(text: ArrayBuffer): usize {
  return changetype<usize>(text);
}

export function log(level: Level, message: string): void {
  const text = String.UTF8.encode(message);
  proxy_log(level, address(text), text.byteLength);
}

// The first header of that name, or null. The host allocates the value, and it is freed here.
export function header(map: Map, name: string): string | null {
  const key = String.UTF8.encode(name);
  const found = new StaticArray<usize>(2);
  const place = changetype<usize>(found);
  if (proxy_get_header_map_value(map, address(key), key.byteLength, place, place + sizeof<usize>()) != OK) return null;
  const value = String.UTF8.decodeUnsafe(found[0], found[1]);
  if (found[0] != 0) heap.free(found[0]);
  return value;
}

export function addHeader(map: Map, name: string, value: string): bool {
  const key = String.UTF8.encode(name);
  const text = String.UTF8.encode(value);
  return proxy_add_header_map_value(map, address(key), key.byteLength, address(text), text.byteLength) == OK;
}

export function respond(status: u32, details: string, body: string): bool {
  const why = String.UTF8.encode(details);
  const text = String.UTF8.encode(body);
  return proxy_send_local_response(status, address(why), why.byteLength, address(text), text.byteLength, 0, 0, -1) == OK;
}

// The module's marker, and the host's way to put bytes into its memory.
export function proxy_abi_version_0_2_1(): void {}

export function proxy_on_memory_allocate(size: usize): usize {
  return heap.alloc(size);
}

// What AssemblyScript calls instead of importing `env.abort`, which no proxy has.
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const text = message === null ? "aborted" : message;
  log(Level.Error, text + " in line " + line.toString());
  unreachable();
}
