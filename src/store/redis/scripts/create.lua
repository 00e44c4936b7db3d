-- Stores a session, whatever was there.
-- KEYS: the session.  ARGV: version, last seen, idle end, absolute end, meta, sealed.
local last = ARGV[3]
if tonumber(ARGV[4]) < tonumber(last) then last = ARGV[4] end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'seen', ARGV[2], 'idle', ARGV[3], 'end', ARGV[4], 'meta', ARGV[5],
  'sealed', ARGV[6])
redis.call('PEXPIREAT', KEYS[1], last)
return 1
