//! Faults: down and up again, late, refusing, unreadable, reset; and the canary.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use super::guest::{json, start};
use crate::demo::faults::{Fault, Gate};
use crate::demo::provider::{Endpoint, Provider, ProviderConfig, canary_traces};

#[tokio::test]
async fn it_goes_down_and_comes_back_on_the_same_port_with_its_memory() {
    let (provider, guest) = start();
    let tokens = guest.log_in().await;
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", tokens["refresh_token"].as_str().unwrap())];
    provider.stop().await;
    assert!(guest.try_post("/oauth/token", &refresh).await.is_err());
    provider.restart().unwrap();
    assert_eq!(guest.post("/oauth/token", &refresh).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn only_loopback_will_do() {
    let address = "0.0.0.0:0".parse().unwrap();
    assert!(Provider::start(ProviderConfig { address, ..ProviderConfig::default() }).is_err());
}

#[tokio::test]
async fn a_held_request_waits_for_the_gate() {
    let (provider, guest) = start();
    let tokens = guest.log_in().await;
    let gate = Gate::closed();
    provider.switches().fault(Endpoint::Token, Fault::hold(&gate));
    let token = tokens["refresh_token"].as_str().unwrap();
    let (response, ()) = tokio::join!(guest.refresh(token), async {
        gate.arrived(1).await;
        assert_eq!(provider.ledger().presentations(token), 0, "the token was not looked at yet");
        gate.open();
    });
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn work_goes_on_when_the_caller_hangs_up() {
    let (provider, guest) = start();
    let tokens = guest.log_in().await;
    let gate = Gate::closed();
    provider.switches().fault(Endpoint::Token, Fault::hold(&gate).times(1));
    let token = tokens["refresh_token"].as_str().unwrap();
    tokio::select! {
        _ = guest.refresh(token) => panic!("the gate is closed"),
        () = gate.arrived(1) => {}
    }
    gate.open();
    let finished = async {
        while provider.ledger().issued().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), finished).await.unwrap();
    assert_eq!(provider.ledger().presentations(token), 1);
}

#[tokio::test]
async fn refusing_answers() {
    let (provider, guest) = start();
    let busy = |fault: Fault| provider.switches().fault(Endpoint::Token, fault.times(1));
    busy(Fault::retry_after(429, 7));
    let response = guest.refresh("x").await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "7"));
    busy(Fault::page(502));
    let response = guest.refresh("x").await;
    assert_eq!((response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()), (502, "text/html"));
    busy(Fault::status(500));
    assert_eq!(guest.refresh("x").await.status().as_u16(), 500);
    assert_eq!(provider.ledger().presentations("x"), 0);
    assert_eq!(guest.refresh("x").await.status().as_u16(), 400, "faults are over");
    assert_eq!(provider.ledger().count(Endpoint::Token), 4);
}

#[tokio::test]
async fn an_answer_can_get_lost_after_the_work() {
    let (provider, guest) = start();
    let mut token = guest.log_in().await["refresh_token"].as_str().unwrap().to_owned();
    for (fault, readable) in
        [(Fault::cut_json(), true), (Fault::reset().after_work(), false), (Fault::status(504).after_work(), true)]
    {
        provider.switches().fault(Endpoint::Token, fault.times(1));
        let answer =
            guest.try_post("/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", &token)]).await;
        assert_eq!(answer.is_ok(), readable);
        if let Ok(answer) = answer {
            let body: Option<Value> = serde_json::from_slice(&answer.bytes().await.unwrap()).ok();
            assert!(body.is_none_or(|body| body["access_token"].is_null()));
        }
        assert_eq!(provider.ledger().presentations(&token), 1);
        token = provider.ledger().last_issued().unwrap().refresh_token.unwrap();
    }
}

#[tokio::test]
async fn a_reset_before_the_work_leaves_the_token_alone() {
    let (provider, guest) = start();
    let tokens = guest.log_in().await;
    let token = tokens["refresh_token"].as_str().unwrap();
    provider.switches().fault(Endpoint::Token, Fault::reset());
    assert!(
        guest.try_post("/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await.is_err()
    );
    provider.switches().faults(Endpoint::Token).clear();
    assert!(json(guest.refresh(token).await).await["access_token"].is_string());
    assert_eq!(provider.ledger().presentations(token), 1);
}

#[tokio::test]
async fn the_canary_sings_in_every_token() {
    let (provider, guest) = start();
    let canary = "canary-0123456789";
    provider.switches().set(|switch| switch.canary = Some(canary.to_owned()));
    let tokens = guest.log_in().await;
    let traces = canary_traces(canary);
    for name in ["access_token", "refresh_token", "id_token"] {
        let token = tokens[name].as_str().unwrap();
        assert!(traces.iter().any(|trace| token.contains(trace)), "{name}");
    }
}
