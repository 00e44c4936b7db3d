-- Puts due sessions off until the lease ends, and strikes off those that are dead or idle. Answers the former.
-- KEYS: the list of the due, sessions of its partition.  ARGV: now, due, active since, lease, a member for each session.
local claimed = {}
for i = 2, #KEYS do
  local member = ARGV[i + 3]
  local due = redis.call('ZSCORE', KEYS[1], member)
  if due and tonumber(due) <= tonumber(ARGV[2]) then
    local t = times(redis.call('HGET', KEYS[i], 't'))
    if t and tonumber(t.last) > tonumber(ARGV[1]) and tonumber(t.seen) >= tonumber(ARGV[3]) then
      redis.call('ZADD', KEYS[1], ARGV[4], member)
      claimed[#claimed + 1] = member
    else
      redis.call('ZREM', KEYS[1], member)
    end
  end
end
return claimed
