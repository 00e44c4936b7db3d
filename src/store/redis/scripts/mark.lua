-- Remembers a moment unless one is remembered. Answers 1 if it is new.
-- KEYS: the mark.  ARGV: now, the moment, until when.
local until_then = string.match(redis.call('GET', KEYS[1]) or '', '^%d+ (%d+)$')
if until_then and tonumber(until_then) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[3])
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
return 1
