//! Tokens for single services (behaviour A6).

use serde_json::json;

use super::{Reply, ready};
use crate::config::settings::Target;
use crate::primitives::secret::SecretText;

#[tokio::test]
async fn a6_a_refresh_token_beside_an_exchanged_one_is_left_alone() {
    let (fake, provider, _) = ready().await;
    let kind = "urn:ietf:params:oauth:token-type:access_token";
    fake.set_token(Reply::Json(
        200,
        json!({"access_token": "a", "issued_token_type": kind, "expires_in": 60, "refresh_token": "of-the-exchange"}),
    ));
    let target = Target { audience: Some("api".to_owned()), ..Target::default() };
    let got = provider.exchange(&SecretText::new("subject".to_owned()), &target).await.unwrap();
    assert_eq!(got.token.expose(), "a");
    // What would be revoked beside it would be revoked before this.
    provider.revoke(&SecretText::new("last".to_owned())).await.unwrap();
    let posts = fake.posts();
    let revoked: Vec<_> = posts.iter().filter_map(|(_, form)| form.get("token")).collect();
    assert_eq!(revoked, ["last"]);
}
