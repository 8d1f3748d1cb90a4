"""The scripts that Redis runs as one step; both keep kombu's keys and format.

In both, the first command that writes is one that a full server (`maxmemory`, noeviction) still accepts; the server
then lets the script finish. So messages can be taken from a full server, which makes room.
"""

from __future__ import annotations

#: Take messages from the first of the lists that has any, and record them as unacknowledged.
#:
#: KEYS: unacked, unacked_index, malformed, then the lists, in the order in which BRPOP would read them.
#: ARGV: the most messages, the approximate most bytes, the time, then for each list 1 (record) or 0 (its consumer does
#: not acknowledge).
#: Returns the number of the list from 0, or -1; how many entries were not messages and were moved to `malformed`; then
#: each message's delivery tag and text.
#:
#: The record contains the text unchanged: decoded and encoded again by cjson, [] would become {}.
FETCH = r"""
local function decoded(text)
  -- The body comes first, is long, and is not needed: without an escape, as in base64, it ends at the next quote.
  if text:sub(1, 10) == '{"body": "' then
    local quote, escape = text:find('"', 11, true), text:find('\\', 11, true)
    if quote and (not escape or quote < escape) then text = '{"body": "' .. text:sub(quote) end
  end
  local is_json, envelope = pcall(cjson.decode, text)
  if not is_json then
    -- half a surrogate pair is an error to cjson, but not to Python or to the writer of dead letters
    local plain = text:gsub('\\\\', ''):gsub('\\u[dD][89a-fA-F]%x%x', '')
    is_json, envelope = pcall(cjson.decode, plain)
  end
  return is_json and type(envelope) == 'table' and envelope
end
local list, malformed, found, room = -1, 0, {}, tonumber(ARGV[2])
for i = 4, #KEYS do
  while #found / 2 + malformed < tonumber(ARGV[1]) and room > 0 do
    local text = redis.call('RPOP', KEYS[i])
    if not text then break end
    local envelope = decoded(text)
    local properties = envelope and envelope.properties
    local tag = type(properties) == 'table' and properties.delivery_tag
    local origin = type(properties) == 'table' and properties.delivery_info
    if type(tag) == 'string' and type(origin) == 'table' then
      if ARGV[i] == '1' then
        redis.call('ZADD', KEYS[2], ARGV[3], tag)
        redis.call('HSET', KEYS[1], tag, '[' .. text .. ', ' .. cjson.encode(origin.exchange or '') .. ', '
                   .. cjson.encode(origin.routing_key or '') .. ']')
      end
      found[#found + 1], found[#found + 2] = tag, text
      list, room = i - 4, room - #text
    else
      redis.call('LPUSH', KEYS[3], text)
      malformed = malformed + 1
    end
  end
  if list >= 0 then break end
end
return {list, malformed, unpack(found)}
"""

#: Move messages that are recorded as unacknowledged to lists, except those that somebody else has moved.
#:
#: KEYS: unacked, unacked_index, then for each text the list that it is pushed to, at the end that is taken first.
#: ARGV: for each of these lists a delivery tag and the text. A tag can occur several times, as with a topic exchange.
MOVE = """
local is_ours, last = {}, {}
for i = 3, #KEYS do
  local tag = ARGV[2 * i - 5]
  if is_ours[tag] == nil then
    is_ours[tag] = redis.call('HEXISTS', KEYS[1], tag) == 1
    redis.call('ZREM', KEYS[2], tag)
  end
  last[tag] = i
end
for i = 3, #KEYS do
  local tag = ARGV[2 * i - 5]
  if is_ours[tag] then
    redis.call('RPUSH', KEYS[i], ARGV[2 * i - 4])
    if last[tag] == i then redis.call('HDEL', KEYS[1], tag) end
  end
end
"""
