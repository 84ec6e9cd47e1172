-- KEYS: the causes, the usage, the digest of the token used last.
-- ARGV: a probe, how long it lasts, a limit on the usage.
-- Returns the number of the cause that closes the gate longest (0: open, -1: the usage
-- has reached the limit), for how long, the usage, how many causes we probe, the digest.
-- Reading the digest keeps a full store from evicting it.

local last = #KEYS - 1
local usage = redis.call('GET', KEYS[last]) or ''
local digest = redis.call('GET', KEYS[last + 1]) or ''
if tonumber(usage) and tonumber(usage) >= tonumber(ARGV[3]) then
  return {-1, 0, usage, 0, digest}
end
local cause, wait, lapsed = 0, 0, {}
for i = 1, last - 1 do
  local closed_until = tonumber(redis.call('HGET', KEYS[i], 'until') or '')
  if closed_until and closed_until > now then
    if closed_until - now > wait then cause, wait = i, closed_until - now end
  elseif closed_until then
    lapsed[#lapsed + 1] = KEYS[i]
  end
end
if cause > 0 then return {cause, wait, usage, 0, digest} end
for _, key in ipairs(lapsed) do
  redis.call('HSET', key, 'until', now + ARGV[2], 'probe', ARGV[1])
end
return {0, 0, usage, #lapsed, digest}
