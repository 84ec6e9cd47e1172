-- KEYS: the causes, the usage, the digest of the token used last, the witnesses.
-- ARGV: a probe, how long it lasts, a limit on the usage, the API key that asks, the
-- number of the cause about which all witnesses are asked at once.
-- Returns the number of the cause that closes the gate longest (0: open, -1: the usage
-- has reached the limit), for how long, the usage, our probe, the digest, the witnesses
-- that our probe is about, 1 if it is about that cause.
-- Reading the digest keeps a full store from evicting it.

local last = #KEYS - 2
local client = ARGV[4]
local usage = redis.call('GET', KEYS[last]) or ''
local digest = redis.call('GET', KEYS[last + 1]) or ''
if tonumber(usage) and tonumber(usage) >= tonumber(ARGV[3]) then
  return {-1, 0, usage, '', digest, {}, 0}
end

local cause, wait, lapsed = 0, 0, {}
local function stop(i, left)
  if left > wait then cause, wait = i, left end
end
for i = 1, last - 1 do
  local state = redis.call('HMGET', KEYS[i], 'until', 'by')
  local closed_until = tonumber(state[1] or '')
  if closed_until and closed_until > now then
    stop(i, closed_until - now)
    if state[2] and state[2] ~= client then redis.call('HSET', KEYS[i], 'other', 1) end
  elseif closed_until then
    lapsed[#lapsed + 1] = i
  end
end
if cause > 0 or #lapsed == 0 then return {cause, wait, usage, '', digest, {}, 0} end

local tried, is_about_all = 0, 0
drop_old_witnesses(KEYS[last + 2])
for _, i in ipairs(lapsed) do
  tried = math.max(tried, tonumber(redis.call('HGET', KEYS[i], 'tried') or '0'))
  if i == tonumber(ARGV[5]) then is_about_all = 1 end
end
local to_ask = is_about_all == 1 and -1 or tried
local witnesses = redis.call('ZREVRANGE', KEYS[last + 2], tried, to_ask)
local probe = 'w' .. ARGV[1]
if #witnesses == 0 then
  probe = 'c' .. ARGV[1]
  for _, i in ipairs(lapsed) do
    local state = redis.call('HMGET', KEYS[i], 'by', 'other', 'turn')
    local turn_until = tonumber(state[3] or '') or 0
    if state[1] == client and state[2] then stop(i, turn_until - now) end
  end
  if cause > 0 then return {cause, wait, usage, '', digest, {}, 0} end
end
for _, i in ipairs(lapsed) do
  redis.call('HSET', KEYS[i], 'until', now + ARGV[2], 'probe', probe)
  if #witnesses == 0 then
    redis.call('HSET', KEYS[i], 'by', client)
    redis.call('HDEL', KEYS[i], 'other')
  end
end
if #witnesses > 0 then cause, wait = lapsed[1], tonumber(ARGV[2]) end
return {cause, wait, usage, probe, digest, witnesses, is_about_all}
