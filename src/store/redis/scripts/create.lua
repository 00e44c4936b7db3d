-- Stores a session, whatever was there. Answers the size of the largest of its owners' sets.
-- KEYS: the session, the list of the due, its owners' sets.
-- ARGV: now, version, last seen, idle end, absolute end, returning end, meta, sealed, member, due, long overdue.
local t = { seen = ARGV[3], idle = ARGV[4], absolute = ARGV[5], returning = ARGV[6], indexed = '0' }
t.last = ending(t.idle, t.absolute, t.returning)
cover(t, ARGV[1])
-- Writes that a full Redis refuses come first: it refuses the first of a script or none.
redis.call('HSET', KEYS[1], 'v', ARGV[2], 't', written(t), 'meta', ARGV[7], 'sealed', ARGV[8])
redis.call('PEXPIREAT', KEYS[1], t.last)
schedule(KEYS[2], ARGV[9], ARGV[10], t.indexed)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[11])
return own(ARGV[9], t.indexed)
