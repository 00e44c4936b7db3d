-- Moves a living session's activity forward; neither revives a session nor moves its version.
-- KEYS: the session.  ARGV: now, last seen, idle end.
local old = redis.call('HMGET', KEYS[1], 'seen', 'idle', 'end')
local now = tonumber(ARGV[1])
if not old[1] or tonumber(old[2]) <= now or tonumber(old[3]) <= now then return 0 end
local seen, idle, last = ARGV[2], ARGV[3], old[3]
if tonumber(old[1]) > tonumber(seen) then seen = old[1] end
if tonumber(old[2]) > tonumber(idle) then idle = old[2] end
if tonumber(idle) < tonumber(last) then last = idle end
redis.call('HSET', KEYS[1], 'seen', seen, 'idle', idle)
redis.call('PEXPIREAT', KEYS[1], last)
return 1
