-- KEYS: the causes that are over, the usage, the people in doubt.
-- ARGV: our probe, the usage and for how long it is kept, 1 if Meta sent a profile.
-- Returns the numbers of the causes that no longer close the gate.

local last = #KEYS
note_usage(KEYS[last - 1], ARGV[2], ARGV[3])
if ARGV[4] == '1' then redis.call('DEL', KEYS[last]) end
local opened = {}
for i = 1, last - 2 do
  local state = redis.call('HMGET', KEYS[i], 'until', 'probe')
  local closed_until = tonumber(state[1] or '')
  if not closed_until or closed_until <= now or state[2] == ARGV[1] then
    if redis.call('DEL', KEYS[i]) == 1 and closed_until then
      opened[#opened + 1] = i
    end
  end
end
return opened
