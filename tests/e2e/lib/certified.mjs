// oidc-provider, a certified OpenID provider, in this process: refresh tokens that are good once, with all of a login ended
// when one is shown again; opaque access tokens; claims of the user at UserInfo alone.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import http from 'node:http';
import { Provider } from 'oidc-provider';
import { listen } from './net.mjs';

/** How long its access tokens live, in seconds: refreshes come soon. */
export const lifetime = 12;

/** A resource that tokens may be asked for, where `features` has it. */
export const api = 'https://api.example.com';

const users = {
  alice: { name: 'Alice Adams', email: 'alice@example.com' },
  bob: { name: 'Bob Baker', email: 'bob@example.com' },
};

const page = (title, body) => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${title}</title>
<link rel="icon" href="data:,"></head><body><h1>${title}</h1>${body}</body></html>
`;

const loginForm = page('Certified login', `<form method="post">
<label>User <input id="username" name="user" autocomplete="off"></label>
<label>Password <input id="password" name="password" type="password" autocomplete="off"></label>
<button id="certified-login">Log in</button></form>`);

/**
 * Starts it with `clients`, in the metadata of RFC 7591. `fetch` is how it calls them: its own refuses loopback addresses.
 * `features` are more of its own.
 * The password of `alice` and `bob` is their name.
 */
export async function startCertified(clients, fetch, features = {}) {
  /** What happened: each an event's name, and what it was about. */
  const events = [];
  const server = http.createServer((request, response) => handle(request, response));
  const port = await listen(server);
  const issuer = `http://127.0.0.1:${port}`;
  const provider = new Provider(issuer, {
    clients,
    fetch,
    cookies: { keys: [randomBytes(32).toString('hex')] },
    jwks: { keys: [signingKey('rsa', { modulusLength: 2048 }, 'RS256'), signingKey('ec', { namedCurve: 'P-256' }, 'ES256')] },
    claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'] },
    ttl: {
      AccessToken: lifetime, AuthorizationCode: 60, Grant: 3600, IdToken: 3600, Interaction: 600, RefreshToken: 3600,
      Session: 3600,
    },
    features: {
      devInteractions: { enabled: false },
      pushedAuthorizationRequests: { enabled: true },
      backchannelLogout: { enabled: true },
      revocation: { enabled: true, allowedPolicy: (_, client, token) => token.clientId === client.clientId },
      ...features,
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => {
          ctx.body = page('Log out?', `${form}<button type="submit" form="op.logoutForm" value="yes" name="logout">Yes</button>`);
        },
        postLogoutSuccessSource: (ctx) => {
          ctx.body = page('Logged out', '');
        },
      },
    },
    // What is asked for is granted: there is no page for consent.
    async loadExistingGrant({ oidc }) {
      const known = oidc.session.grantIdFor(oidc.client.clientId);
      if (known) return oidc.provider.Grant.find(known);
      const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
      grant.addOIDCScope('openid profile email');
      grant.addResourceScope(api, 'read');
      await grant.save();
      return grant;
    },
    issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    findAccount: (_, sub) => {
      const user = sub.replace(/^account-/, '');
      return users[user] && {
        accountId: sub,
        claims: () => ({ sub, preferred_username: user, email_verified: true, ...users[user] }),
      };
    },
    interactions: { url: (_, { uid }) => `/interaction/${uid}` },
    renderError: (ctx, out) => {
      ctx.type = 'text';
      ctx.body = JSON.stringify(out);
    },
  });
  const note = (name, about) => provider.on(name, (...details) => events.push({ name, about: about(...details) }));
  for (const name of ['authorization.error', 'grant.error', 'pushed_authorization_request.error', 'server_error']) {
    note(name, (_, error) => error.error_detail ?? error.error_description ?? error.message);
  }
  note('refresh_token.consumed', (token) => token.jti);
  note('grant.revoked', (_, id) => id);
  note('backchannel.success', (_, client) => client.clientId);
  note('backchannel.error', (_, error) => `${error.message} ${error.cause ?? ''}`);
  const callback = provider.callback();

  async function handle(request, response) {
    if (!request.url.startsWith('/interaction/')) return callback(request, response);
    if (request.method === 'POST') {
      let body = '';
      for await (const chunk of request) body += chunk;
      const form = new URLSearchParams(body);
      const user = form.get('user');
      if (Object.hasOwn(users, user) && form.get('password') === user) {
        return provider.interactionFinished(request, response, { login: { accountId: `account-${user}` } });
      }
    }
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
    response.end(loginForm);
  }

  return {
    issuer,
    events,
    /** What the events `name` were about. */
    of: (name) => events.filter((event) => event.name === name).map(({ about }) => about),
    /** What went wrong so far; nothing does in a good test. */
    errors: () => events.filter(({ name }) => name.endsWith('error')),
    stop: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

function signingKey(kind, options, alg) {
  const { privateKey } = generateKeyPairSync(kind, options);
  return { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: alg };
}

/** A request for tokens by a client with a secret. */
export async function askForTokens(issuer, client, form) {
  const answer = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`${client.id}:${client.secret}`).toString('base64')}` },
    body: new URLSearchParams(form),
  });
  return { status: answer.status, body: await answer.json() };
}

/** Logs `user` in at it as a client with a secret does; `more` are parameters of both requests. Returns the tokens. */
export async function logInByHand(page, issuer, client, user, more = {}) {
  const answered = page.waitForRequest((request) => request.url().startsWith(client.redirect));
  // The example of RFC 7636.
  const verifier = 'dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk';
  await page.goto(`${issuer}/auth?${new URLSearchParams({
    client_id: client.id, redirect_uri: client.redirect, response_type: 'code', scope: 'openid',
    code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', code_challenge_method: 'S256', ...more,
  })}`);
  await fillCertified(page, user);
  const code = new URL((await answered).url()).searchParams.get('code');
  const form = { grant_type: 'authorization_code', code, redirect_uri: client.redirect, code_verifier: verifier };
  return askForTokens(issuer, client, more.resource ? { ...form, resource: more.resource } : form);
}

/** Fills its form and sends it. */
export async function fillCertified(page, user) {
  await page.locator('#username').fill(user);
  await page.locator('#password').fill(user);
  await page.locator('#certified-login').click();
}
