// A backend with a login of its own, as apps have that grew up without an OpenID provider: JSON in, tokens out. Its refresh
// tokens are good once.
import { randomBytes } from 'node:crypto';
import http from 'node:http';
import { listen } from './net.mjs';

/** How long its access tokens live, in seconds. */
export const lifetime = 6;

/** The password of `alice` and `bob`. */
export const password = 'a password that nobody would guess';

const people = {
  alice: { id: 1, name: 'Alice Adams', roles: ['clerk'] },
  bob: { id: 2, name: 'Bob Baker', roles: [] },
};

export async function startBackend() {
  /** Every request: path, headers, body. */
  const posted = [];
  /** Refresh tokens that are good, and whose they are. */
  const good = new Map();
  const issued = [];
  const server = http.createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { url, headers } = request;
    posted.push({ path: url, headers, body });
    const [status, answer] = serve(url, headers, body);
    response.writeHead(status, answer && { 'content-type': 'application/json' });
    response.end(answer && JSON.stringify(answer));
  });

  function serve(path, headers, body) {
    if (path === '/auth/login') {
      const form = JSON.parse(body);
      const known = Object.hasOwn(people, form.username) && form.password === password;
      return known ? issue(form.username) : [401, { message: 'unknown user or wrong password' }];
    }
    const token = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? JSON.parse(body).refreshToken;
    const user = good.get(token);
    good.delete(token);
    if (path === '/auth/logout') return [204];
    return user ? issue(user) : [401, { message: 'unknown refresh token' }];
  }

  function issue(user) {
    const [access, refresh] = ['access', 'refresh'].map((kind) => `${kind}-${randomBytes(24).toString('base64url')}`);
    good.set(refresh, user);
    issued.push(access, refresh);
    return [200, {
      accessToken: access, accessTokenExpiresIn: lifetime, refreshToken: refresh, refreshTokenExpiresIn: 3600,
      user: people[user],
    }];
  }

  const port = await listen(server);
  return {
    origin: `http://127.0.0.1:${port}`,
    /** What was posted to an endpoint. */
    at: (path) => posted.filter((request) => request.path === path),
    /** Every token that it gave out. */
    issued,
    /** All refresh tokens are worth nothing from now on. */
    forget: () => good.clear(),
    /** Whether nobody's refresh token is good any more. */
    knowsNobody: () => good.size === 0,
    stop: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
