-- Compare-and-swap of a session. Answers 1 stored, 0 conflict, -1 gone.
-- KEYS: the session, the list of the due, its owners' sets.
-- ARGV: now, expected version, version, last seen, idle end, absolute end, returning end, meta, sealed, member, due,
-- channel, message ('' = nobody is to hear of it).
local old = redis.call('HMGET', KEYS[1], 'v', 't')
local was = times(old[2])
if not old[1] or not was or tonumber(was.last) <= tonumber(ARGV[1]) then return -1 end
-- Versions are compared as text: they may be more than a double holds.
if old[1] ~= ARGV[2] then return 0 end
local t = { seen = later(was.seen, ARGV[4]), idle = later(was.idle, ARGV[5]), absolute = ARGV[6],
  returning = later(was.returning, ARGV[7]), indexed = was.indexed }
t.last = ending(t.idle, t.absolute, t.returning)
cover(t, ARGV[1])
redis.call('HSET', KEYS[1], 'v', ARGV[3], 't', written(t), 'meta', ARGV[8], 'sealed', ARGV[9])
redis.call('PEXPIREAT', KEYS[1], t.last)
schedule(KEYS[2], ARGV[10], ARGV[11], t.indexed)
own(ARGV[10], t.indexed)
if ARGV[13] ~= '' then redis.call('PUBLISH', ARGV[12], ARGV[13]) end
return 1
