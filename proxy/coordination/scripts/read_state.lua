-- What an operator sees.
-- KEYS: the causes, the usage, the row of people that Meta does not show, the row of
-- people with a failure about the app or the Page, the verdict, the witnesses, the
-- refreshes.
-- ARGV: the names of the counters of refreshes.

local last, rows = #KEYS - 6, {}
for i = 1, last do
  local state = redis.call('HMGET', KEYS[i], 'failures', 'until', 'probe')
  local left = 0
  if state[2] then left = math.max(tonumber(state[2]) - now, 0) end
  rows[i] = {tonumber(state[1] or '0'), left, state[3] and 1 or 0}
end
return {rows, redis.call('GET', KEYS[last + 1]) or '',
        redis.call('SCARD', KEYS[last + 2]), redis.call('ZCARD', KEYS[last + 3]),
        redis.call('HGET', KEYS[last + 4], 'is_refused') == '1' and 1 or 0,
        redis.call('ZCARD', KEYS[last + 5]),
        redis.call('HMGET', KEYS[last + 6], unpack(ARGV))}
