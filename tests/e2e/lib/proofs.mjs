// Proofs that the sender of a token has the key that it is bound to (DPoP, RFC 9449).
import assert from 'node:assert/strict';
import { createHash, createPublicKey, verify } from 'node:crypto';

export const digest = (text) => createHash('sha256').update(text).digest('base64url');

/** What a proof says, once its signature is good (RFC 9449 §4.2); `thumbprint` names the key (RFC 7638). */
export function proofOf(headers) {
  const [head, claims, signature] = headers.dpop.split('.');
  const { typ, alg, jwk } = JSON.parse(Buffer.from(head, 'base64url'));
  assert.deepEqual([typ, alg], ['dpop+jwt', 'ES256']);
  assert.deepEqual(Object.keys(jwk).sort(), ['crv', 'kty', 'x', 'y'], 'and nothing of the private key');
  const key = { key: createPublicKey({ key: jwk, format: 'jwk' }), dsaEncoding: 'ieee-p1363' };
  assert.ok(verify('sha256', `${head}.${claims}`, key, Buffer.from(signature, 'base64url')), 'the signature is good');
  const thumbprint = digest(JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x, y: jwk.y }));
  return { ...JSON.parse(Buffer.from(claims, 'base64url')), thumbprint };
}
