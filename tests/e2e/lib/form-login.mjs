// A login through Keycloak's HTML form without a browser: the shortest proof that the realm is right.
import { createHash, randomBytes } from 'node:crypto';

/** Logs `user` in and returns the code and its verifier. */
export async function logIn(issuer, client, redirectUri, user, password) {
  const verifier = randomBytes(32).toString('base64url');
  const state = randomBytes(16).toString('base64url');
  const query = new URLSearchParams({
    client_id: client.id,
    redirect_uri: redirectUri,
    response_type: 'code',
    scope: 'openid',
    state,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  const page = await fetch(`${issuer}/protocol/openid-connect/auth?${query}`, { redirect: 'manual' });
  const html = await page.text();
  const action = /<form[^>]*id="kc-form-login"[^>]*action="([^"]+)"/.exec(html)?.[1];
  if (!action) throw new Error(`no login form in the answer ${page.status} of the provider`);
  const cookies = page.headers.getSetCookie().map((line) => line.split(';', 1)[0]).join('; ');
  const answer = await fetch(action.replaceAll('&amp;', '&'), {
    method: 'POST',
    redirect: 'manual',
    headers: { cookie: cookies },
    body: new URLSearchParams({ username: user, password, credentialId: '' }),
  });
  const location = answer.headers.get('location');
  if (!location?.startsWith(redirectUri)) throw new Error(`login answered ${answer.status}, location ${location}`);
  const back = new URL(location);
  if (back.searchParams.get('state') !== state) throw new Error('the provider sent back another state');
  return { code: back.searchParams.get('code'), verifier };
}

/** Redeems a code, or a refresh token, as the client would. */
export async function tokenRequest(issuer, client, form) {
  const answer = await fetch(`${issuer}/protocol/openid-connect/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`${client.id}:${client.secret}`).toString('base64')}` },
    body: new URLSearchParams(form),
  });
  return { status: answer.status, body: await answer.json() };
}
