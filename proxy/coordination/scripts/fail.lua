-- KEYS: the usage, the cause, the other causes.
-- ARGV: our probe, the usage and for how long it is kept, the wait that Meta asked for,
-- failures until the gate closes, first wait, longest wait, how long all this is kept.
-- Returns 1 if this closes the gate, for how long it is closed, failures in a row.

note_usage(KEYS[1], ARGV[2], ARGV[3])
for i = 3, #KEYS do end_probe(KEYS[i], ARGV[1]) end
local key = KEYS[2]
local state = redis.call('HMGET', key, 'until', 'probe', 'level')
local closed_until, level = tonumber(state[1] or '') or 0, tonumber(state[3] or '') or 0
local is_probe = ARGV[1] ~= '' and state[2] == ARGV[1]
local failures = redis.call('HINCRBY', key, 'failures', 1)
local closes = 0
if failures >= tonumber(ARGV[5]) then
  if is_probe then closed_until = 0 end
  if closed_until <= now then
    closes, level = 1, level + 1
  end
  local wait = tonumber(ARGV[4])
  if wait == 0 then
    wait = math.min(ARGV[6] * 2 ^ math.min(level - 1, 30), tonumber(ARGV[7]))
  end
  closed_until = math.max(closed_until, now + math.floor(wait))
  redis.call('HSET', key, 'until', closed_until, 'level', level)
  if is_probe then redis.call('HDEL', key, 'probe') end
end
local left = math.max(closed_until - now, 0)
redis.call('PEXPIRE', key, left + tonumber(ARGV[8]))
return {closes, left, failures}
