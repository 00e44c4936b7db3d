-- Takes a login out of its browser's hash; browser and state are checked by the same step. Answers nothing if it is
-- not there or expired.
-- KEYS: the browser.  ARGV: now, state.
local login = redis.call('HGET', KEYS[1], ARGV[2])
if not login then return false end
redis.call('HDEL', KEYS[1], ARGV[2])
-- What is left may be the counter alone.
if redis.call('HLEN', KEYS[1]) <= 1 then redis.call('DEL', KEYS[1]) end
local head, expires = string.match(login, '^(%d+:(%d+):)')
if not expires or tonumber(expires) <= tonumber(ARGV[1]) then return false end
return string.sub(login, #head + 1)
