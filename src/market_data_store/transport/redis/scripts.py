"""The scripts that Redis runs as one step; all keep kombu's keys and format.

In each, the first command that writes is one that a full server (`maxmemory`, noeviction) still accepts; the server
then lets the script finish. So messages can be taken from a full server, which makes room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from market_data_store.transport.moving import MoveRefused
from market_data_store.transport.redis.malformed import MOST_ENTRIES

#: An entry of more bytes, apart from a body that comes first, is not decoded: that would keep the server from its other
#: clients for half a second and longer.
MOST_DECODED_BYTES = 32 << 20

#: Take messages from the first of the lists that has any, and record them as unacknowledged.
#:
#: KEYS: unacked, unacked_index, malformed, then the lists, in the order in which they are looked at.
#: ARGV: the approximate most bytes, the worker's time (recorded if the server does not tell it), then for each list the
#: name of the queue to which its messages go back, whatever they say of where they were sent; or '' if its consumer
#: does not acknowledge, and they are not recorded; then for each list the most messages. A message whose delivery tag
#: is recorded for another gets a new one.
#: Returns the number of the list from 0, or -1; how many entries were not messages and were moved to `malformed`, which
#: keeps the newest `MOST_ENTRIES`; then
#: each message's delivery tag, its text, and the server's time when it was first recorded, or '' if the server does not
#: tell its time.
#:
#: That time is added to the text in the record, as `taken_at` at its end; not to a message with a past time of its own,
#: the header `enqueued_at`, for it costs two copies of the text. kombu and this package keep it when they give the
#: message back, so it survives redeliveries. Of equal names a JSON reader takes the last, so a sender cannot set a time
#: in the future. Messages of one fetch are a microsecond apart, so that they stay in order. Otherwise the text is
#: unchanged: decoded and encoded again by cjson, [] would become {}.
FETCH = (
    f"local most_malformed, most_decoded = {MOST_ENTRIES}, {MOST_DECODED_BYTES}"
    + r"""
local clock = redis.pcall('TIME')  -- an error where the user may not run it
local seconds, microseconds = tonumber(clock[1]), tonumber(clock[2])
-- When the message was first taken, and the end of its record's text that says so, if it must.
local function first_time(envelope, place)
  if not seconds then return '' end
  local now = microseconds + place
  local function is_past(time)
    return type(time) == 'number' and time >= 946684800 and time <= seconds + now / 1e6
  end
  local headers, first = envelope.headers, envelope.taken_at
  local time = string.format('%d.%06d', seconds + math.floor(now / 1e6), now % 1e6)
  if is_past(first) then time = string.format('%.6f', first) end
  if first == nil and type(headers) == 'table' and is_past(headers.enqueued_at) then return time end
  return time, ', "taken_at": ' .. time .. '}'
end
local function decoded(text)
  -- The body comes first, is long, and is not needed: without an escape, as in base64, it ends at the next quote.
  local _, start = text:find('^{%s?"body"%s?:%s?"')
  if start then
    local quote, escape = text:find('"', start + 1, true), text:find('\\', start + 1, true)
    if quote and (not escape or quote < escape) then text = '{"body": "' .. text:sub(quote) end
  end
  if #text > most_decoded then return false end
  local is_json, envelope = pcall(cjson.decode, text)
  if not is_json then
    -- half a surrogate pair is an error to cjson, but not to Python or to the writer of dead letters
    local plain = text:gsub('\\\\', ''):gsub('\\u[dD][89a-fA-F]%x%x', '')
    is_json, envelope = pcall(cjson.decode, plain)
  end
  return is_json and type(envelope) == 'table' and envelope
end
local recorded_at = ARGV[2]
if seconds then recorded_at = string.format('%d.%06d', seconds, microseconds) end
local list, malformed, found, room = -1, 0, {}, tonumber(ARGV[1])
for i = 4, #KEYS do
  local queue, most = ARGV[i - 1], tonumber(ARGV[#KEYS + i - 4])
  while #found / 3 + malformed < most and room > 0 do
    local text = redis.call('RPOP', KEYS[i])
    if not text then break end
    local envelope = decoded(text)
    local properties = envelope and envelope.properties
    local tag = type(properties) == 'table' and properties.delivery_tag
    local origin = type(properties) == 'table' and properties.delivery_info
    if type(tag) == 'string' and type(origin) == 'table' then
      local time, ending = first_time(envelope, #found / 3)
      if queue ~= '' then
        if tag == '' or redis.call('HEXISTS', KEYS[1], tag) == 1 then
          tag = string.format('%s#%s#%d', tag, recorded_at, #found)
        end
        redis.call('ZADD', KEYS[2], recorded_at, tag)
        local record = text
        if ending then
          if record:sub(-1) ~= '}' then record = record:gsub('%s+$', '') end
          record = record:sub(1, -2)
        end
        redis.call('HSET', KEYS[1], tag, '[' .. record .. (ending or '') .. ', '
                   .. '"", ' .. cjson.encode(queue) .. ']')
      end
      found[#found + 1], found[#found + 2], found[#found + 3] = tag, text, time
      list, room = i - 4, room - #text
    else
      redis.call('LPUSH', KEYS[3], text)
      malformed = malformed + 1
    end
  end
  if list >= 0 then break end
end
if malformed > 0 then redis.call('LTRIM', KEYS[3], 0, most_malformed - 1) end
return {list, malformed, unpack(found)}
"""
)

#: Move messages that are recorded as unacknowledged to lists, except those that somebody else has moved.
#:
#: KEYS: unacked, unacked_index, then for each text the list that it is pushed to.
#: ARGV: RPUSH (the end that is taken first) or LPUSH, then for each of these lists a delivery tag and the text. A tag
#: can occur several times, as with a topic exchange.
MOVE = """
local is_ours, last = {}, {}
for i = 3, #KEYS do
  local tag = ARGV[2 * i - 4]
  if is_ours[tag] == nil then
    is_ours[tag] = redis.call('HEXISTS', KEYS[1], tag) == 1
    redis.call('ZREM', KEYS[2], tag)
  end
  last[tag] = i
end
for i = 3, #KEYS do
  local tag = ARGV[2 * i - 4]
  if is_ours[tag] then
    redis.call(ARGV[1], KEYS[i], ARGV[2 * i - 3])
    if last[tag] == i then redis.call('HDEL', KEYS[1], tag) end
  end
end
"""

#: Move waiting messages from one list to another, in their order.
#:
#: KEYS: the two lists. ARGV: the most messages. Returns how many were moved.
POUR = """
local moved = 0
while moved < tonumber(ARGV[1]) do
  local text = redis.call('RPOP', KEYS[1])
  if not text then break end
  redis.call('LPUSH', KEYS[2], text)
  moved = moved + 1
end
return moved
"""

#: Set the time from which the visibility timeout counts, of messages that are still recorded.
#:
#: KEYS: unacked_index. ARGV: the time, then the delivery tags.
RENEW = """
redis.call('ZREM', KEYS[1], '')
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', ARGV[1], ARGV[i])
end
"""

#: Look at the messages of a list that would be taken first.
#:
#: KEYS: the list. ARGV: the most messages, and about how many bytes end it. Returns their texts.
LOOK = """
local found, room = {}, tonumber(ARGV[2])
for place = 1, tonumber(ARGV[1]) do
  local text = room > 0 and redis.call('LINDEX', KEYS[1], -place)
  if not text then break end
  found[place], room = text, room - #text
end
return found
"""

#: Move waiting messages to a list, in this order, if they are still where they were.
#:
#: KEYS: the list, then for each message the list that it is in. ARGV: for each message its text there, and the text
#: that it gets. Returns for each message 1 or 0.
RELEASE = """
local moved = {}
for i = 2, #KEYS do
  moved[i - 1] = redis.call('LREM', KEYS[i], -1, ARGV[2 * i - 3])
  if moved[i - 1] == 1 then redis.call('LPUSH', KEYS[1], ARGV[2 * i - 2]) end
end
return moved
"""

#: Count the records of messages that go back to certain lists.
#:
#: KEYS: unacked. ARGV: the queues. Returns the number for each.
TAKEN = """
local counts, endings = {}, {}
for i, queue in ipairs(ARGV) do counts[i], endings[i] = 0, cjson.encode(queue) .. ']' end
for _, record in ipairs(redis.call('HVALS', KEYS[1])) do
  for i, ending in ipairs(endings) do
    if record:sub(-#ending) == ending then counts[i] = counts[i] + 1 end
  end
end
return counts
"""


def run(channel: Any, script: str, keys: Sequence[str], *arguments: Any) -> Any:
    """Run a script over one of the channel's connections; raises `MoveRefused` if the server refuses it."""
    prefixed = [channel.global_keyprefix + key for key in keys]
    try:
        with channel.conn_or_acquire() as client:
            return client.eval(script, len(prefixed), *prefixed, *arguments)
    except ResponseError as error:
        raise MoveRefused(str(error)) from error
