-- Ends a session. Answers 1 if it lived.
-- KEYS: the session.  ARGV: now.
local old = redis.call('HMGET', KEYS[1], 'idle', 'end')
redis.call('DEL', KEYS[1])
local now = tonumber(ARGV[1])
if not old[1] or tonumber(old[1]) <= now or tonumber(old[2]) <= now then return 0 end
return 1
