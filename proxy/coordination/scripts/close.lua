-- Stands after gate.lua, before the scripts that close the gate.

-- The key that asked last lets another key probe for as long as the gate was closed,
-- and at most so many milliseconds.
local LONGEST_TURN = 60000

-- Close the gate for a cause, for the wait that Meta asked for, or a first one that
-- doubles each time up to a longest one. Never shorten it. Return 1 if it was open, or
-- lapsed, and for how long it is closed. `client` is the API key whose call failed; nil
-- if no caller has asked.
local function close(key, probe, client, asked, first, longest, remembered)
  local state = redis.call('HMGET', key, 'until', 'probe', 'level')
  local closed_until, level = tonumber(state[1] or '') or 0, tonumber(state[3] or '') or 0
  local is_probe = probe ~= '' and state[2] == probe
  local closes = 0
  if is_probe then closed_until = 0 end
  if closed_until <= now then closes, level = 1, level + 1 end
  local wait = tonumber(asked)
  if wait == 0 then
    wait = math.min(first * 2 ^ math.min(level - 1, 30), tonumber(longest))
  end
  closed_until = math.max(closed_until, now + math.floor(wait))
  local turn_until = closed_until + math.min(closed_until - now, LONGEST_TURN)
  redis.call('HSET', key, 'until', closed_until, 'level', level, 'turn', turn_until)
  if is_probe then
    redis.call('HDEL', key, 'probe')
    if is_about_witness(probe) then
      redis.call('HINCRBY', key, 'tried', 1)
    else
      redis.call('HDEL', key, 'tried')
    end
  end
  if closes == 1 and client and not is_about_witness(probe) then
    redis.call('HSET', key, 'by', client)
  end
  redis.call('PEXPIRE', key, closed_until - now + tonumber(remembered))
  return closes, closed_until - now
end
