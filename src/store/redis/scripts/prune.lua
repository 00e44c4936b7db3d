-- Strikes dead sessions, and such as belong to somebody else, off an owner's set: those whose meta is still the one that
-- was found ('' = gone).
-- KEYS: the set, sessions.  ARGV: for each session its member and meta.
for i = 2, #KEYS do
  local at = 2 * i - 3
  if (redis.call('HGET', KEYS[i], 'meta') or '') == ARGV[at + 1] then redis.call('SREM', KEYS[1], ARGV[at]) end
end
return 1
