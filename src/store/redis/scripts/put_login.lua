-- Adds a login to its browser's hash; drops the expired ones and, beyond the limit, the oldest. Answers what lived under
-- the same name, if anything did.
-- A field is named by the hashed state and holds `<age>:<expires>:<sealed>`; '#' counts the ages.
-- KEYS: the browser.  ARGV: now, limit, state, expires, sealed.
local now, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local fields = redis.call('HGETALL', KEYS[1])
local logins, last, before = {}, ARGV[4], false
for i = 1, #fields, 2 do
  local state = fields[i]
  if state == ARGV[3] then
    local head, expires = string.match(fields[i + 1], '^(%d+:(%d+):)')
    if expires and tonumber(expires) > now then before = string.sub(fields[i + 1], #head + 1) end
  elseif state ~= '#' then
    local age, expires = string.match(fields[i + 1], '^(%d+):(%d+):')
    if not expires or tonumber(expires) <= now then
      redis.call('HDEL', KEYS[1], state)
    else
      logins[#logins + 1] = { state = state, age = tonumber(age) }
      if tonumber(expires) > tonumber(last) then last = expires end
    end
  end
end
table.sort(logins, function(a, b) return a.age < b.age end)
for i = 1, #logins - limit + 1 do redis.call('HDEL', KEYS[1], logins[i].state) end
local age = string.format('%.0f', redis.call('HINCRBY', KEYS[1], '#', 1))
redis.call('HSET', KEYS[1], ARGV[3], age .. ':' .. ARGV[4] .. ':' .. ARGV[5])
redis.call('PEXPIREAT', KEYS[1], last)
return before
