-- Stands before each of the gate's scripts. `now` is in milliseconds.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function note_usage(key, percent, ttl)
  if percent ~= '' then redis.call('SET', key, percent, 'PX', ttl) end
end

-- The witnesses are the people whom Meta showed last, and for so many milliseconds.
local WITNESSES_KEPT_FOR = 604800000

local function drop_old_witnesses(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - WITNESSES_KEPT_FOR)
end

-- The probes about a witness begin with w, those that are a caller's own question with c.
local function is_about_witness(probe)
  return string.sub(probe, 1, 1) == 'w'
end

-- A probe that has learned nothing of a cause lets the next caller probe it: by the
-- witness before, if this one was about a witness.
local function end_probe(key, probe)
  if probe ~= '' and redis.call('HGET', key, 'probe') == probe then
    redis.call('HSET', key, 'until', now)
    redis.call('HDEL', key, 'probe')
    if is_about_witness(probe) then redis.call('HINCRBY', key, 'tried', 1) end
  end
end
