-- Ends a session. Answers its fields, in the order of fields.rs, as they were.
-- KEYS: the session.
local old = redis.call('HMGET', KEYS[1], 'v', 'seen', 'idle', 'end', 'meta', 'sealed')
redis.call('DEL', KEYS[1])
return old
