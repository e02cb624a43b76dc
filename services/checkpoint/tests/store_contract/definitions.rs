use crate::fixture::{Fixture, namespace};
use bytes::Bytes;
use troupe_checkpoint::model::{Definition, DefinitionKey, Micros};
use troupe_domain::Code;

fn definition(name: &str, version: &str, hash: &str) -> Definition {
    Definition {
        namespace: namespace("acme"),
        name: name.into(),
        version: version.into(),
        hash: hash.into(),
        body: Bytes::from(format!("\"{hash}\"")),
        source: format!("name: {name}"),
        created_at: Micros(5),
    }
}

pub(crate) async fn stored_once_and_immutable(f: Fixture) {
    let first = definition("flow", "1", "h1");
    assert_eq!(f.journal.put_definition(first.clone()).await.unwrap(), (first.clone(), true));
    let again = Definition { source: "other text, same content".into(), created_at: Micros(9), ..first.clone() };
    assert_eq!(f.journal.put_definition(again).await.unwrap(), (first.clone(), false));
    assert_eq!(f.journal.put_definition(definition("flow", "1", "h2")).await.unwrap_err().code(), Code::Conflict);
    assert_eq!(f.journal.put_definition(definition("flow", "", "h2")).await.unwrap_err().code(), Code::InvalidArgument);
    let second = definition("flow", "2", "h2");
    f.journal.put_definition(second.clone()).await.unwrap();

    let get = |key| f.journal.get_definition(namespace("acme"), key);
    assert_eq!(get(DefinitionKey::Hash("h1".into())).await.unwrap(), first);
    assert_eq!(get(DefinitionKey::Version("flow".into(), "1".into())).await.unwrap(), first);
    assert_eq!(get(DefinitionKey::Newest("flow".into())).await.unwrap(), second);
    for missing in [DefinitionKey::Hash("h9".into()), DefinitionKey::Version("flow".into(), "9".into()), DefinitionKey::Newest("x".into())]
    {
        assert_eq!(get(missing).await.unwrap_err().code(), Code::NotFound);
    }
    let foreign = f.journal.get_definition(namespace("other"), DefinitionKey::Hash("h1".into())).await;
    assert_eq!(foreign.unwrap_err().code(), Code::NotFound);
}

pub(crate) async fn listed_by_name_and_by_age(f: Fixture) {
    for (name, version) in [("b", "1"), ("a", "1"), ("a", "2"), ("c", "1"), ("a", "3")] {
        f.journal.put_definition(definition(name, version, &format!("{name}{version}"))).await.unwrap();
    }
    let list = async |name: &str| {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = f.journal.list_definitions(namespace("acme"), name.into(), 2, cursor).await.unwrap();
            assert!(page.items.iter().all(|definition| definition.body.is_empty() && definition.source.is_empty()));
            seen.extend(page.items.into_iter().map(|definition| definition.hash));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                return seen;
            }
        }
    };
    assert_eq!(list("").await, ["a3", "b1", "c1"]);
    assert_eq!(list("a").await, ["a3", "a2", "a1"]);
    assert!(list("nothing").await.is_empty());
}
