-- All members of the sets.
-- KEYS: sets.
local all = {}
for _, key in ipairs(KEYS) do
  for _, member in ipairs(redis.call('SMEMBERS', key)) do all[#all + 1] = member end
end
return all
