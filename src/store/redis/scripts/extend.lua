-- As touch.lua for one session, which takes its indexes with it. Answers 1 if that is all, 0 if its meta is another now.
-- KEYS: the session, the list of the due, its owners' sets.
-- ARGV: now, last seen, idle end, returning end, member, meta.
local old = redis.call('HMGET', KEYS[1], 't', 'meta')
local t = times(old[1])
if not t or tonumber(t.last) <= tonumber(ARGV[1]) then return 1 end
if old[2] ~= ARGV[6] then return 0 end
t.seen, t.idle, t.returning = later(t.seen, ARGV[2]), later(t.idle, ARGV[3]), later(t.returning, ARGV[4])
t.last = ending(t.idle, t.absolute, t.returning)
cover(t, ARGV[1])
redis.call('HSET', KEYS[1], 't', written(t))
redis.call('PEXPIREAT', KEYS[1], t.last)
keep(KEYS[2], t.indexed)
own(ARGV[5], t.indexed)
return 1
