-- What an operator sees.
-- KEYS: the causes, the usage, the people in doubt, the refreshes.
-- ARGV: the names of the counters of refreshes.

local last, rows = #KEYS - 1, {}
for i = 1, last - 2 do
  local state = redis.call('HMGET', KEYS[i], 'failures', 'until', 'probe')
  local left = 0
  if state[2] then left = math.max(tonumber(state[2]) - now, 0) end
  rows[i] = {tonumber(state[1] or '0'), left, state[3] and 1 or 0}
end
return {rows, redis.call('GET', KEYS[last - 1]) or '', redis.call('SCARD', KEYS[last]),
        redis.call('HMGET', KEYS[last + 1], unpack(ARGV))}
