-- Ends a session. Answers its fields, in the order of fields.rs, as they were; or its meta alone, if that is not the one
-- the owners were read from, and nothing was done.
-- KEYS: the session, the list of the due, its owners' sets.
-- ARGV: now, member, meta, channel, message.
local old = redis.call('HMGET', KEYS[1], 'v', 't', 'meta', 'sealed')
if (old[3] or '') ~= ARGV[3] then return { old[3] or '' } end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
for i = 3, #KEYS do redis.call('SREM', KEYS[i], ARGV[2]) end
-- One that cannot be read was perhaps alive.
local t = times(old[2])
local was = old[1] or old[2] or old[3] or old[4]
if was and (not t or tonumber(t.last) > tonumber(ARGV[1])) then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
return old
