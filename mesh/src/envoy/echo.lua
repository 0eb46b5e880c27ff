local ESCAPES = {['"'] = '\\"', ['\\'] = '\\\\', ['\b'] = '\\b', ['\f'] = '\\f', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t'}

local function quoted(text)
  return '"' .. text:gsub('[%c"\\]', function(c) return ESCAPES[c] or string.format('\\u%04x', c:byte()) end) .. '"'
end

local function listed(map)
  local pairs_ = {}
  if map ~= nil then
    for name, value in pairs(map) do
      if name:sub(1, 1) ~= ':' then
        pairs_[#pairs_ + 1] = '    [\n      ' .. quoted(name) .. ',\n      ' .. quoted(value) .. '\n    ]'
      end
    end
  end
  return #pairs_ == 0 and '[]' or '[\n' .. table.concat(pairs_, ',\n') .. '\n  ]'
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local method, path = headers:get(':method'), headers:get(':path')
  local authority = headers:get(':authority') or ''
  local sent = listed(headers)
  local body, size = '', 0
  local buffered = handle:body()
  if buffered ~= nil then
    size = buffered:length()
    body = buffered:getBytes(0, math.min(size, 65536))
  end
  local fields = {
    '"authority": ' .. quoted(authority),
    '"body": ' .. quoted(body),
    '"body_size": ' .. size,
    '"headers": ' .. sent,
    '"method": ' .. quoted(method),
    '"path": ' .. quoted(path),
    '"trailers": ' .. listed(handle:trailers()),
  }
  local answer = '{\n  ' .. table.concat(fields, ',\n  ') .. '\n}\n'
  handle:respond({[':status'] = '200', ['content-type'] = 'application/json'}, answer)
end
