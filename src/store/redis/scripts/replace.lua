-- Compare-and-swap of a session. Answers 1 stored, 0 conflict, -1 gone.
-- KEYS: the session.  ARGV: now, expected version, version, last seen, idle end, absolute end, meta, sealed.
local old = redis.call('HMGET', KEYS[1], 'v', 'seen', 'idle', 'end')
local now = tonumber(ARGV[1])
if not old[1] or tonumber(old[3]) <= now or tonumber(old[4]) <= now then return -1 end
-- Versions are compared as text: they may be more than a double holds.
if old[1] ~= ARGV[2] then return 0 end
-- Times go back as the text they came as: Lua would write a large number as 1.7e+12.
local seen, idle, last = ARGV[4], ARGV[5], ARGV[6]
if tonumber(old[2]) > tonumber(seen) then seen = old[2] end
if tonumber(old[3]) > tonumber(idle) then idle = old[3] end
if tonumber(idle) < tonumber(last) then last = idle end
redis.call('HSET', KEYS[1], 'v', ARGV[3], 'seen', seen, 'idle', idle, 'end', ARGV[6], 'meta', ARGV[7],
  'sealed', ARGV[8])
redis.call('PEXPIREAT', KEYS[1], last)
return 1
