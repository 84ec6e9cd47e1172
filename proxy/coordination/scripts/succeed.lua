-- KEYS: the causes that are over, the usage, the failures in a row, the row of people
-- with a failure about the app or the Page, the mark of a success, the row of people
-- that Meta does not show, the verdict, the witnesses.
-- ARGV: our probe, the usage and for how long it is kept, what came: profile, fact (about
-- any other person that Meta looked for) or reply; the person, for how long a success is
-- marked, how many witnesses are kept.
-- Returns the numbers of the causes that no longer close the gate.

local last = #KEYS - 7
local refused, success, not_shown = KEYS[last + 3], KEYS[last + 4], KEYS[last + 5]
local verdict, witnesses = KEYS[last + 6], KEYS[last + 7]
note_usage(KEYS[last + 1], ARGV[2], ARGV[3])
redis.call('DEL', KEYS[last + 2])
if ARGV[4] ~= 'reply' then
  redis.call('SET', success, '', 'PX', ARGV[6])
  redis.call('DEL', refused)
  redis.call('HDEL', verdict, 'is_refused', 'window_until', 'window_calls')
end
if ARGV[4] == 'profile' then
  redis.call('DEL', not_shown)
  redis.call('HDEL', verdict, 'may_look')
  redis.call('ZADD', witnesses, now, ARGV[5])
  redis.call('ZREMRANGEBYRANK', witnesses, 0, -ARGV[7] - 1)
  drop_old_witnesses(witnesses)
  redis.call('PEXPIRE', witnesses, WITNESSES_KEPT_FOR)
end
local opened = {}
for i = 1, last do
  local state = redis.call('HMGET', KEYS[i], 'until', 'probe')
  local closed_until = tonumber(state[1] or '')
  if not closed_until or closed_until <= now or state[2] == ARGV[1] then
    if redis.call('DEL', KEYS[i]) == 1 and closed_until then
      opened[#opened + 1] = i
    end
  end
end
return opened
