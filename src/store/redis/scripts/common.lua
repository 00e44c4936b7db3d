-- What several scripts share; stands before each of them.
--
-- A session is a hash. `t` holds its times, in this order: last seen, idle, absolute and returning end, and until when
-- its indexes are sure to last. Times go back as the text they came as: Lua would write a large number as 1.7e+12.
local LAST = 9007199254740992

local function later(a, b)
  if tonumber(a) > tonumber(b) then return a end
  return b
end

-- Record::end.
local function ending(idle, absolute, returning)
  if tonumber(absolute) < tonumber(idle) then idle = absolute end
  return later(idle, returning)
end

-- nil if there is no session, or none that this version can read.
local function times(text)
  if not text then return nil end
  local seen, idle, absolute, returning, indexed = string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not seen then return nil end
  return { seen = seen, idle = idle, absolute = absolute, returning = returning, indexed = indexed,
    last = ending(idle, absolute, returning) }
end

local function written(t)
  return table.concat({ t.seen, t.idle, t.absolute, t.returning, t.indexed }, ' ')
end

-- Indexes last half as long again as the session, so that most touches need not look after them.
local function cover(t, now)
  local last = tonumber(t.last)
  local until_then = math.min(last + math.max(0, math.floor((last - tonumber(now)) / 2)), LAST)
  t.indexed = later(string.format('%.0f', until_then), t.indexed)
end

-- Lets a key live until then, or longer if it does already.
local function keep(key, until_then)
  local left = redis.call('PTTL', key)
  local clock = redis.call('TIME')
  if left < 0 or clock[1] * 1000 + math.floor(clock[2] / 1000) + left < tonumber(until_then) then
    redis.call('PEXPIREAT', key, until_then)
  end
end

-- Enters a session in the sets of its owners: those of KEYS from the third on. Answers the size of the largest.
local function own(member, until_then)
  local largest = 0
  for i = 3, #KEYS do
    redis.call('SADD', KEYS[i], member)
    keep(KEYS[i], until_then)
    largest = math.max(largest, redis.call('SCARD', KEYS[i]))
  end
  return largest
end

-- Sets when a session is due; '' strikes it off the list.
local function schedule(list, member, due, until_then)
  if due == '' then
    redis.call('ZREM', list, member)
  else
    redis.call('ZADD', list, due, member)
    keep(list, until_then)
  end
end
