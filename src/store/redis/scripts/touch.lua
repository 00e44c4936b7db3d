-- Moves the activity of living sessions forward; revives none and moves no version. Answers for each '' if that is all,
-- else its meta: it would outlive its indexes, and nothing was done.
-- KEYS: sessions of one partition.  ARGV: now; for each session last seen, idle end, returning end.
local answers = {}
for i, key in ipairs(KEYS) do
  answers[i] = ''
  local t = times(redis.call('HGET', key, 't'))
  if t and tonumber(t.last) > tonumber(ARGV[1]) then
    local at = 3 * i - 1
    t.seen, t.idle, t.returning = later(t.seen, ARGV[at]), later(t.idle, ARGV[at + 1]), later(t.returning, ARGV[at + 2])
    t.last = ending(t.idle, t.absolute, t.returning)
    if tonumber(t.last) > tonumber(t.indexed) then
      answers[i] = redis.call('HGET', key, 'meta') or ''
    else
      redis.call('HSET', key, 't', written(t))
      redis.call('PEXPIREAT', key, t.last)
    end
  end
end
return answers
