-- Open the gate for an operator: forget a cause, and what has led to it.
-- KEYS: the cause, the rows of people and the verdict behind it.
-- Returns for how long the gate would have been closed, failures in a row.

local state = redis.call('HMGET', KEYS[1], 'until', 'failures')
local left = math.max((tonumber(state[1] or '') or 0) - now, 0)
redis.call('DEL', unpack(KEYS))
return {left, tonumber(state[2] or '0')}
