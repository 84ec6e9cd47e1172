-- Stands before each of the gate's scripts. `now` is in milliseconds.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function note_usage(key, percent, ttl)
  if percent ~= '' then redis.call('SET', key, percent, 'PX', ttl) end
end

-- A probe that has learned nothing of a cause lets the next caller probe it.
local function end_probe(key, probe)
  if probe ~= '' and redis.call('HGET', key, 'probe') == probe then
    redis.call('HSET', key, 'until', now)
    redis.call('HDEL', key, 'probe')
  end
end
