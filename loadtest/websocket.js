// WebSockets of logged-in users stay up and carry what is sent; they close with 4401 when the user logs out. No handshake
// from another origin, and none without a session.
import { check } from 'k6';
import ws from 'k6/ws';

import { newUser } from './lib/login.js';
import { SECONDS, TIMED, VUS, allOf, common, journeys, thresholds } from './lib/profile.js';
import { SITE, checkUpstream, counted, counters, until, whole } from './lib/world.js';
import { User } from './lib/user.js';

export { handleSummary } from './lib/summary.js';

export const options = { ...common, scenarios: { sockets: journeys('sockets') }, thresholds: thresholds(allOf()) };

const URL = SITE.replace(/^http/, 'ws') + (__ENV.WS_PATH || '/ws/echo');
const WITHIN = (TIMED ? 2 : 10) * 1000;

function shakeHands(user, origin) {
  const line = user.line();
  let status = 0;
  try {
    status = ws.connect(URL, { headers: { Origin: origin, ...(line ? { Cookie: line } : {}) }, tags: { name: 'ws' } }, (socket) => {
      socket.on('open', () => socket.close());
      socket.on('error', () => {});
    }).status;
  } catch (error) {
    // k6 throws for a handshake that was refused, in some versions; what it says has the status in it.
    status = Number(/\b([45]\d\d)\b/.exec(String(error))?.[1] ?? -1);
  }
  return status;
}

export const sockets = whole(() => {
  check(shakeHands(new User(), SITE), { 'stranger: 401': (status) => status === 401 });
  const user = newUser(__VU);
  check(shakeHands(user, 'https://evil.example'), { 'another origin: 403': (status) => status === 403 });

  const seen = { sent: 0, came: 0, wrong: 0, early: false, loggedOut: 0, closed: 0, code: 0 };
  ws.connect(URL, { headers: { Origin: SITE, Cookie: user.line() }, tags: { name: 'ws' } }, (socket) => {
    const say = () => {
      seen.sent += 1;
      socket.send(`${__VU}:${seen.sent}`);
    };
    socket.on('open', () => {
      say();
      socket.setInterval(say, 500);
      socket.setTimeout(() => {
        check(user.post('/auth/logout', 'logout'), { 'logout: is done': ({ status }) => status === 200 });
        seen.loggedOut = Date.now();
        // For the case that nobody closes it.
        socket.setTimeout(() => socket.close(), WITHIN + 2000);
      }, SECONDS * 1000);
    });
    socket.on('message', (text) => {
      seen.came += 1;
      if (text !== `${__VU}:${seen.came}`) seen.wrong += 1;
    });
    socket.on('close', (code) => {
      seen.code = code;
      seen.closed = Date.now();
    });
    socket.on('error', (error) => console.warn(String(error)));
  });
  check(seen, {
    'socket: stays up until the logout': ({ loggedOut, closed }) => loggedOut > 0 && closed >= loggedOut,
    'socket: carries everything, in order': ({ sent, came, wrong }) => wrong === 0 && came > 0 && came >= sent - 1,
    'socket: closes with 4401 at the logout': ({ code, loggedOut, closed }) => code === 4401 && closed - loggedOut < WITHIN,
  });
});

export function teardown() {
  checkUpstream();
  if (!counted) return;
  check(until(() => counters().upstream.sockets === 0, 10), { 'upstream: no socket is left': Boolean });
  check(counters(), { 'upstream: no handshake but those of users': ({ upstream }) => upstream.upgrades === VUS });
}
