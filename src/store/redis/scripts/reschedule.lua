-- Sets when living sessions are due.
-- KEYS: the list of the due, sessions of its partition.  ARGV: now; for each session its member and the moment.
for i = 2, #KEYS do
  local at = 2 * i - 2
  local t = times(redis.call('HGET', KEYS[i], 't'))
  if t and tonumber(t.last) > tonumber(ARGV[1]) then schedule(KEYS[1], ARGV[at], ARGV[at + 1], t.indexed) end
end
return 1
