-- The earliest sessions of each list that are due, each followed by the moment.
-- KEYS: lists of the due.  ARGV: due, most of each list.
local all = {}
for _, key in ipairs(KEYS) do
  for _, text in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])) do
    all[#all + 1] = text
  end
end
return all
