-- What a script finds beside plain Lua: the methods of Envoy's objects, and a standard library without the host.
-- `host` holds the functions of the host. Each returns an error's text or nil, then its values: raised here, an error
-- is a string with the script's own line, as a C function's is in Envoy.
local host, methods = ...

local error, type, select, tostring, tonumber, pairs = error, type, select, tostring, tonumber, pairs
local setmetatable, ipairs, pcall = setmetatable, ipairs, pcall
local yield, concat, format = coroutine.yield, table.concat, string.format

-- The host's answer when the script has to wait; what it waits for is then what `yield` returns.
local WAIT = host.WAIT

local function bad(name, index, expected, count, value, level)
  local got = index > count and "no value" or type(value)
  error(format("bad argument #%d to '%s' (%s expected, got %s)", index, name, expected, got), level + 1)
end

-- Strings as luaL_checkstring takes them: numbers count.
local function text(name, index, count, value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  bad(name, index, "string", count, value, 3)
end

local function optional_text(name, index, count, value)
  if value == nil then return nil end
  return text(name, index, count, value)
end

local function number(name, index, count, value)
  local result = type(value) == "number" and value or type(value) == "string" and tonumber(value)
  if not result then bad(name, index, "number", count, value, 3) end
  return result
end

local function object_with(list)
  for name, method in pairs(host.log_methods) do list[name] = method end
  return list
end

-- Logging, on every object.
host.log_methods = {}
for name, level in pairs { logTrace = 0, logDebug = 1, logInfo = 2, logWarn = 3, logErr = 4, logCritical = 5 } do
  host.log_methods[name] = function(self, ...)
    host.log(level, text(name, 1, select("#", ...), (...)))
  end
end

-- A method without arguments whose only value may be absent.
local function plain(call)
  return function(self)
    local err, value = call(self)
    if err then error(err, 2) end
    return value
  end
end

-- Objects. The host knows which may be used; here is which methods one has. Nearly every script uses its handle and the
-- headers, and they are found without a table. What is left over from before is known to the host.
local handle_now, headers_now
local sets, any = {}, false
local function of(set, object)
  sets[object], any = set, true
  return object
end
local function begin(handle, headers)
  handle_now, headers_now = handle, headers
  if any then sets, any = {}, false end
end

-- A method without arguments that gives an object.
local function gives(set, call)
  return function(self)
    local err, value = call(self)
    if err then error(err, 2) end
    return of(methods[set], value)
  end
end

-- Headers and trailers.
local headers_get, headers_at, headers_count = host.headers_get, host.headers_at, host.headers_count
local headers_add, headers_replace, headers_remove = host.headers_add, host.headers_replace, host.headers_remove
local headers_step, iterate = host.headers_step, host.iterate

methods.headers = object_with {
  get = function(self, ...)
    local name = ...
    if type(name) ~= "string" then name = text("get", 1, select("#", ...), name) end
    local err, value = headers_get(self, name)
    if err then error(err, 2) end
    if value then return value end
  end,
  getAtIndex = function(self, ...)
    local name, index = ...
    local count = select("#", ...)
    local err, value = headers_at(self, text("getAtIndex", 1, count, name), number("getAtIndex", 2, count, index))
    if err then error(err, 2) end
    if value then return value end
  end,
  getNumValues = function(self, ...)
    local err, value = headers_count(self, text("getNumValues", 1, select("#", ...), (...)))
    if err then error(err, 2) end
    return value
  end,
  add = function(self, ...)
    local name, value = ...
    if type(name) ~= "string" or type(value) ~= "string" then
      local count = select("#", ...)
      name, value = text("add", 1, count, name), text("add", 2, count, value)
    end
    local err = headers_add(self, name, value)
    if err then error(err, 2) end
  end,
  replace = function(self, ...)
    local name, value = ...
    if type(name) ~= "string" or type(value) ~= "string" then
      local count = select("#", ...)
      name, value = text("replace", 1, count, name), text("replace", 2, count, value)
    end
    local err = headers_replace(self, name, value)
    if err then error(err, 2) end
  end,
  remove = function(self, ...)
    local err = headers_remove(self, text("remove", 1, select("#", ...), (...)))
    if err then error(err, 2) end
  end,
  setHttp1ReasonPhrase = function(self, ...)
    local err = host.headers_reason(self, text("setHttp1ReasonPhrase", 1, select("#", ...), (...)))
    if err then error(err, 2) end
  end,
}
local iterators = {}
iterators[methods.headers] = function(self)
  local err = iterate(self)
  if err then error(err, 2) end
  local index = 0
  return function()
    local failed, name, value = headers_step(self, index)
    if failed then error(failed, 2) end
    index = index + 1
    if name then return name, value end
  end
end

-- A body, or a chunk of one.
methods.body = object_with {
  length = plain(host.body_length),
  getBytes = function(self, ...)
    local index, length = ...
    local count = select("#", ...)
    local err, value = host.body_get(self, number("getBytes", 1, count, index), number("getBytes", 2, count, length))
    if err then error(err, 2) end
    return value
  end,
  setBytes = function(self, ...)
    local err, value = host.body_set(self, text("setBytes", 1, select("#", ...), (...)))
    if err then error(err, 2) end
    return value
  end,
}

-- Metadata of routes and of the filter: under Istio there is none.
methods.metadata = object_with {
  get = function(self, ...)
    text("get", 1, select("#", ...), (...))
    local err = host.live_metadata(self)
    if err then error(err, 2) end
  end,
}
iterators[methods.metadata] = function(self)
  local err = host.live_metadata(self)
  if err then error(err, 2) end
  return function() end
end
methods.route = object_with { metadata = gives("metadata", host.route_metadata) }

methods.dynamic_metadata = object_with {
  get = function(self, ...)
    local err, value = host.dynamic_get(self, text("get", 1, select("#", ...), (...)))
    if err then error(err, 2) end
    if value then return value end
  end,
  set = function(self, ...)
    local filter, key, value = ...
    local count = select("#", ...)
    local err = host.dynamic_set(self, text("set", 1, count, filter), text("set", 2, count, key), value)
    if err then error(err, 2) end
  end,
}
iterators[methods.dynamic_metadata] = function(self)
  local err, names = host.dynamic_names(self)
  if err then error(err, 2) end
  local index = 0
  return function()
    index = index + 1
    local failed, value = host.dynamic_step(self, names[index])
    if failed then error(failed, 2) end
    if value then return names[index], value end
  end
end

local function typed_metadata(self, ...)
  text("dynamicTypedMetadata", 1, select("#", ...), (...))
  return nil
end

methods.filter_state = object_with {
  get = function(self, ...)
    local err, value = host.filter_state_get(self, text("get", 1, select("#", ...), (...)))
    if err then error(err, 2) end
    if value then return value end
  end,
  set = function() error("filterState():set() is not available: this proxy has no factories of filter state objects", 2) end,
}

methods.stream_info = object_with {
  dynamicMetadata = gives("dynamic_metadata", host.dynamic_metadata),
  dynamicTypedMetadata = typed_metadata,
  filterState = gives("filter_state", host.filter_state),
  drainConnectionUponCompletion = function(self)
    local err = host.drain(self)
    if err then error(err, 2) end
  end,
}
for _, name in ipairs { "protocol", "routeName", "downstreamLocalAddress", "downstreamDirectLocalAddress",
  "downstreamRemoteAddress", "downstreamDirectRemoteAddress", "requestedServerName", "virtualClusterName" } do
  methods.stream_info[name] = function(self)
    local err, value = host.stream_info_field(self, name)
    if err then error(err, 2) end
    return value
  end
end
-- Connections are plain text here.
methods.stream_info.downstreamSslConnection = function(self)
  local err = host.live_stream_info(self)
  if err then error(err, 2) end
  return nil
end
methods.connection = object_with {
  ssl = function(self)
    local err = host.live_connection(self)
    if err then error(err, 2) end
    return nil
  end,
}
methods.connection_stream_info = object_with {
  dynamicMetadata = gives("dynamic_metadata", host.connection_metadata),
  dynamicTypedMetadata = typed_metadata,
}

methods.public_key = object_with { get = plain(host.key_name) }

-- Metrics.
local function metric(kind)
  return function(self, ...)
    local err, value = host.stat(self, kind, text(kind, 1, select("#", ...), (...)))
    if err then error(err, 2) end
    return of(methods[kind], value)
  end
end
local UNITS = { ms = true, milliseconds = true, microseconds = true, nanoseconds = true, bytes = true, unspecified = true }
methods.stats = object_with {
  counter = metric("counter"),
  gauge = metric("gauge"),
  histogram = function(self, ...)
    local name, unit = ...
    name, unit = text("histogram", 1, select("#", ...), name), optional_text("histogram", 2, 2, unit)
    if unit and not UNITS[unit] then
      error(format("invalid histogram unit '%s', expected 'ms', 'milliseconds', 'microseconds', 'nanoseconds', 'bytes', "
        .. "or 'unspecified'", unit), 2)
    end
    local err, value = host.stat(self, "histogram", name)
    if err then error(err, 2) end
    return of(methods.histogram, value)
  end,
}
local function step(name, fixed, sign)
  return function(self, ...)
    local amount = fixed or number(name, 1, select("#", ...), (...))
    local err = host.stat_add(self, amount * sign)
    if err then error(err, 2) end
  end
end
methods.counter = object_with { inc = step("inc", 1, 1), add = step("add", nil, 1), value = plain(host.stat_value) }
local function record(name)
  return function(self, ...)
    local err = host.stat_record(self, number(name, 1, select("#", ...), (...)))
    if err then error(err, 2) end
  end
end
methods.gauge = object_with {
  inc = step("inc", 1, 1), dec = step("dec", 1, -1), add = step("add", nil, 1), sub = step("sub", nil, -1),
  value = plain(host.stat_value),
  set = function(self, ...)
    local value = number("set", 1, select("#", ...), (...))
    if value < 0 then error("gauge set value must be non-negative", 2) end
    local err = host.stat_record(self, value)
    if err then error(err, 2) end
  end,
}
methods.histogram = object_with { recordValue = record("recordValue") }

-- The stream handle.
local headers, body, chunks, chunk, trailers, respond, http_call =
  host.headers, host.body, host.chunks, host.chunk, host.trailers, host.respond, host.http_call

local function wait(handle)
  local first, second = yield()
  begin(handle)
  return first, second
end

local OPTIONS = {
  asynchronous = "boolean", timeout_ms = "number", trace_sampled = "boolean",
  return_duplicate_headers = "boolean", send_xff = "boolean",
}

methods.handle = object_with {
  headers = function(self)
    if self == handle_now and headers_now then return headers_now end
    local err, value = headers(self)
    if err then error(err, 2) end
    headers_now = value
    return value
  end,
  requestHeaders = gives("headers", host.request_headers),
  body = function(self, always)
    local err, value = body(self, always and true or false)
    if err then error(err, 2) end
    if value == WAIT then value = wait(self) end
    if value ~= nil then return of(methods.body, value) end
  end,
  bodyChunks = function(self)
    local err = chunks(self)
    if err then error(err, 2) end
    return function()
      local failed, waits = chunk(self)
      if failed then error(failed, 2) end
      local value
      if waits then value = wait(self) end
      if value ~= nil then return of(methods.body, value) end
    end
  end,
  trailers = function(self)
    local err, value = trailers(self)
    if err then error(err, 2) end
    if value == WAIT then value = wait(self) end
    if value ~= nil then return of(methods.headers, value) end
  end,
  metadata = gives("metadata", host.metadata),
  filterContext = gives("metadata", host.metadata),
  route = gives("route", host.route),
  virtualHost = gives("route", host.route),
  streamInfo = gives("stream_info", host.stream_info),
  connection = gives("connection", host.connection),
  connectionStreamInfo = gives("connection_stream_info", host.connection_stream_info),
  stats = gives("stats", host.stats),
  respond = function(self, ...)
    local headers, content = ...
    local count = select("#", ...)
    -- Envoy looks at where it is before it looks at what it was given.
    local err = host.may_respond(self)
    if err then error(err, 2) end
    if type(headers) ~= "table" then bad("respond", 1, "table", count, headers, 2) end
    err = respond(self, count, headers, optional_text("respond", 2, count, content))
    if err then error(err, 2) end
    yield()
  end,
  httpCall = function(self, ...)
    local cluster, headers, content, timeout, asynchronous = ...
    local count = select("#", ...)
    local duplicates, xff = false, true
    if type(timeout) == "table" then
      local options = timeout
      timeout, asynchronous = 0, false
      for key, value in pairs(options) do
        local expected = OPTIONS[key]
        if not expected then error(format('"%s" is not valid key for httpCall() options', tostring(key)), 2) end
        if expected == "number" then
          if type(value) ~= "number" then bad("httpCall", count + 3, "number", count + 3, value, 2) end
          timeout = value
        elseif key == "asynchronous" then
          asynchronous = value
        elseif key == "return_duplicate_headers" then
          duplicates = value
        elseif key == "send_xff" then
          xff = value
        end
      end
    else
      if count > 4 and type(asynchronous) ~= "boolean" then
        error("http call asynchronous flag must be 'true', 'false', or empty", 2)
      end
      timeout = number("httpCall", 4, count, timeout)
    end
    if timeout < 0 then error("http call timeout must be >= 0", 2) end
    cluster = text("httpCall", 1, count, cluster)
    if type(headers) ~= "table" then bad("httpCall", 2, "table", count, headers, 2) end
    content = optional_text("httpCall", 3, count, content)
    local err, waits = http_call(self, count, cluster, headers, content, timeout, asynchronous and true or false,
      duplicates and true or false, xff and true or false)
    if err then error(err, 2) end
    if waits then return wait(self) end
  end,
  base64Escape = function(self, ...)
    return host.base64_encode(text("base64Escape", 1, select("#", ...), (...)))
  end,
  base64Decode = function(self, ...)
    return host.base64_decode(text("base64Decode", 1, select("#", ...), (...)))
  end,
  timestamp = function(self, resolution)
    if resolution ~= nil and resolution ~= 0 then error("timestamp format must be MILLISECOND.", 2) end
    return host.timestamp(false)
  end,
  timestampString = function(self, resolution)
    if resolution ~= nil and resolution ~= 0 and resolution ~= 1 then
      error("timestamp format must be MILLISECOND or MICROSECOND.", 2)
    end
    return format("%.0f", host.timestamp(resolution == 1))
  end,
  importPublicKey = function(self, ...)
    local key, length = ...
    local count = select("#", ...)
    local err, value =
      host.import_key(self, text("importPublicKey", 1, count, key), number("importPublicKey", 2, count, length))
    if err then error(err, 2) end
    return of(methods.public_key, value)
  end,
  verifySignature = function(self, ...)
    local hash, key, signature, signature_length, data, data_length = ...
    local count = select("#", ...)
    local err, verified, reason = host.verify(self, text("verifySignature", 1, count, hash),
      text("verifySignature", 2, count, key), text("verifySignature", 3, count, signature), number("verifySignature", 4, count, signature_length),
      text("verifySignature", 5, count, data), number("verifySignature", 6, count, data_length))
    if err then error(err, 2) end
    return verified, reason
  end,
  -- Routes do not depend on headers here: there is one upstream.
  clearRouteCache = function() end,
  setUpstreamOverrideHost = function()
    error("setUpstreamOverrideHost() is not available: this proxy has one upstream host", 2)
  end,
}

-- Of an object that is no more: whatever its methods are called, they fail.
local gone = {}
for _, set in pairs(methods) do
  for name in pairs(set) do
    gone[name] = function() error("object used outside of proper scope", 2) end
  end
end
object_with(gone)

local handle_methods, headers_methods = methods.handle, methods.headers
local function set_of(object)
  if object == headers_now then return headers_methods end
  if object == handle_now then return handle_methods end
  return sets[object] or gone
end

-- What all objects have in common: they are of one type.
methods.object = {
  __metatable = false,
  __index = function(self, key)
    if self == headers_now then return headers_methods[key] end
    if self == handle_now then return handle_methods[key] end
    return (sets[self] or gone)[key]
  end,
  __pairs = function(self)
    local set = set_of(self)
    local iterator = iterators[set]
    if iterator then return iterator(self) end
    error(set == gone and "object used outside of proper scope" or "bad argument #1 to 'pairs' (table expected, got userdata)", 2)
  end,
}

-- What each coroutine runs: the script's function, and what it failed with.
local nested = 0
methods.main = function(f, handle, headers)
  begin(handle, headers)
  -- A script only waits outside of its own coroutines, and one that was stopped may have left some.
  nested = 0
  local fine, err = pcall(f, handle)
  if fine then return nil end
  local kind = type(err)
  if kind == "string" or kind == "number" then return tostring(err) end
  if kind == "userdata" then error(err, 0) end
  return "unspecified lua error"
end

EnvoyTimestampResolution = { MILLISECOND = 0, MICROSECOND = 1 }

-- The standard library without the host.
local function refused(name, why)
  return function() error(format("%s is not available: %s", name, why), 2) end
end
local HOST = "a script here has no access to the machine it runs on"

-- A library of which only a part is here: every other name is a function that says so.
local function guarded(library, present, why)
  return setmetatable(present, {
    __index = function(_, key)
      if type(key) == "string" then return refused(library .. "." .. key, why) end
    end,
    __metatable = false,
  })
end

io = guarded("io", {}, HOST)
os = guarded("os", { clock = os.clock, date = os.date, difftime = os.difftime, time = os.time }, HOST)
debug = guarded("debug", { traceback = host.traceback }, "a script must not look into what runs it")
jit = guarded("jit", { version = "LuaJIT 2.1", version_num = 20199, os = "Linux", arch = "x64", status = function() return false end },
  "the compiler is off, since it does not look at the time limit")
dofile, loadfile = refused("dofile", HOST), refused("loadfile", HOST)
newproxy = refused("newproxy", "a finalizer runs outside of the time limit")
module = refused("module", HOST)
string.dump = refused("string.dump", "bytecode is not loaded, so that nothing is gained by writing it")

local modules = { bit = bit, math = math, string = string, table = table, coroutine = coroutine, os = os, io = io }
require = function(name)
  local found = modules[name]
  if not found then
    error(format("require '%s' is not available: a script here cannot load files or foreign code", tostring(name)), 2)
  end
  return found
end
package = guarded("package", { loaded = modules, preload = {}, path = "", cpath = "" }, HOST)

-- Source only: bytecode is not checked by the virtual machine, and can do anything.
local load_source = load
local BYTECODE = "load of bytecode is not available: only source is loaded"
local function is_bytecode(chunk) return type(chunk) == "string" and chunk:byte(1) == 27 end
local function load_checked(chunk, name, mode, ...)
  if is_bytecode(chunk) or mode == "b" then return nil, BYTECODE end
  if type(chunk) == "function" then
    local pieces = {}
    while true do
      local piece = chunk()
      if piece == nil or piece == "" then break end
      if type(piece) ~= "string" then return nil, "reader function must return a string" end
      pieces[#pieces + 1] = piece
      if is_bytecode(pieces[1]) then return nil, BYTECODE end
    end
    chunk = concat(pieces)
    if name == nil then name = "=(load)" end
  end
  return load_source(chunk, name, "t", ...)
end
load = load_checked
loadstring = function(chunk, name) return load_checked(text("loadstring", 1, 1, chunk), name) end

-- Once the time is up nothing is caught any more. A handler of `xpcall` runs when the stack is unwound: within an
-- error of the time limit itself nobody would look at the clock.
local limit, resume = host.limit, coroutine.resume
local TIME_IS_UP = "the time for the script is up"
local function caught(fine, ...)
  if not fine and limit.over then error(TIME_IS_UP, 0) end
  return fine, ...
end
local function handled(handler, fine, ...)
  if fine then return true, ... end
  if limit.over then error(TIME_IS_UP, 0) end
  return false, select(2, caught(pcall(handler, ...)))
end
_G.pcall = function(...)
  if select("#", ...) == 0 then bad("pcall", 1, "value", 0, nil, 2) end
  return caught(pcall(...))
end
xpcall = function(f, handler, ...)
  if type(handler) ~= "function" then bad("xpcall", 2, "function", 2, handler, 2) end
  return handled(handler, pcall(f, ...))
end

-- Each coroutine within another takes of the thread's own stack.
local MAX_NESTED = 100
local create = coroutine.create
local function left(...)
  nested = nested - 1
  return ...
end
local function enter(thread, ...)
  if nested >= MAX_NESTED then error(format("coroutines are nested more than %d deep", MAX_NESTED), 3) end
  nested = nested + 1
  return caught(left(resume(thread, ...)))
end
coroutine.resume = function(...) return enter(...) end
local function wrapped(fine, ...)
  if not fine then
    local err = ...
    error(err, 0)
  end
  return ...
end
coroutine.wrap = function(f)
  local thread = create(f)
  return function(...) return wrapped(enter(thread, ...)) end
end

-- Standard output is the harness's own.
print = function(...)
  local parts = {}
  for index = 1, select("#", ...) do parts[index] = tostring((select(index, ...))) end
  host.print(concat(parts, "\t"))
end

-- Patterns, searching and sorting that end when the time is up.
local find, scan, substitute = host.find, host.scan, host.substitute
local sub, unpack, floor = string.sub, unpack, math.floor

local function spread(err, ...)
  if err then error(err, 2) end
  return ...
end
local function integer(name, index, count, value, default)
  if value == nil then return default end
  return number(name, index, count, value)
end
string.find = function(s, pattern, init, plain_text)
  s, pattern = text("find", 1, 2, s), text("find", 2, 2, pattern)
  return spread(find(s, pattern, integer("find", 3, 3, init, 1), plain_text and "plain" or "find"))
end
string.match = function(s, pattern, init)
  s, pattern = text("match", 1, 2, s), text("match", 2, 2, pattern)
  return spread(find(s, pattern, integer("match", 3, 3, init, 1), "match"))
end
string.gmatch = function(s, pattern)
  s, pattern = text("gmatch", 1, 2, s), text("gmatch", 2, 2, pattern)
  local at = 1
  local function advance(err, first, last, ...)
    if err then error(err, 3) end
    if not first then
      at = #s + 2
      return nil
    end
    at = last >= first and last + 1 or first + 1
    return ...
  end
  return function()
    if at > #s + 1 then return nil end
    return advance(scan(s, pattern, at, false))
  end
end
string.gfind = string.gmatch

local function replacement(lookup, s, first, last, ...)
  local value
  if type(lookup) == "function" then value = lookup(...) else value = lookup[(...)] end
  if value == nil or value == false then return sub(s, first, last) end
  local kind = type(value)
  if kind ~= "string" and kind ~= "number" then error(format("invalid replacement value (a %s)", kind), 4) end
  return value
end
string.gsub = function(s, pattern, lookup, max)
  s, pattern = text("gsub", 1, 3, s), text("gsub", 2, 3, pattern)
  max = integer("gsub", 4, 4, max, #s + 1)
  local kind = type(lookup)
  if kind == "string" or kind == "number" then return spread(substitute(s, pattern, tostring(lookup), max)) end
  if kind ~= "function" and kind ~= "table" then bad("gsub", 3, "string/function/table", 3, lookup, 2) end
  local anchored = sub(pattern, 1, 1) == "^"
  local parts, count, at, size = {}, 0, 1, #s
  local function one(err, first, last, ...)
    if err then error(err, 3) end
    if not first then return false end
    count = count + 1
    parts[#parts + 1] = sub(s, at, first - 1)
    parts[#parts + 1] = replacement(lookup, s, first, last, ...)
    if last >= first then
      at = last + 1
    else
      parts[#parts + 1] = sub(s, first, first)
      at = first + 1
    end
    return not anchored and at <= size + 1
  end
  while count < max and one(scan(s, pattern, at, true)) do end
  parts[#parts + 1] = sub(s, at)
  return concat(parts), count
end

-- A merge sort: the built-in one does not look at the time limit.
local function less(a, b) return a < b end
table.sort = function(list, before)
  if type(list) ~= "table" then bad("sort", 1, "table", 1, list, 2) end
  if before ~= nil and type(before) ~= "function" then bad("sort", 2, "function", 2, before, 2) end
  before = before or less
  local size, width, from, into = #list, 1, list, {}
  while width < size do
    for low = 1, size, 2 * width do
      local left, right, middle, high = low, low + width, low + width, low + 2 * width
      if middle > size + 1 then middle = size + 1 end
      if high > size + 1 then high = size + 1 end
      for slot = low, high - 1 do
        if left < middle and (right >= high or not before(from[right], from[left])) then
          into[slot], left = from[left], left + 1
        else
          into[slot], right = from[right], right + 1
        end
      end
    end
    from, into, width = into, from, 2 * width
  end
  if from ~= list then
    for slot = 1, size do list[slot] = from[slot] end
  end
end
