"""The eight domains and 28 items of GB/T 36073-2018 (DCMM), and which evidence a node can give by itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DOMAINS", "ITEMS", "Item"]

#: Number of the clause → (Chinese, English).
DOMAINS: dict[int, tuple[str, str]] = {
    6: ("数据战略", "Data strategy"),
    7: ("数据治理", "Data governance"),
    8: ("数据架构", "Data architecture"),
    9: ("数据应用", "Data application"),
    10: ("数据安全", "Data security"),
    11: ("数据质量", "Data quality"),
    12: ("数据标准", "Data standards"),
    13: ("数据生存周期", "Data life cycle"),
}


@dataclass(frozen=True)
class Item:
    """One item.

    Parameters
    ----------
    number
        Clause of the standard.
    zh, en
        Its name.
    evidence
        Names of files (below ``evidence/``) → what they show. Empty: only people can give evidence.
    """

    number: str
    zh: str
    en: str
    evidence: dict[str, str]


def _item(number: str, zh: str, en: str, **evidence: str) -> Item:
    return Item(number, zh, en, {_FILES[name]: text for name, text in evidence.items()})


_FILES = {
    "settings": "settings.json",
    "kpi": "kpi.json",
    "catalogue": "catalogue.csv",
    "events": "events.jsonl",
    "quality": "quality.csv",
    "audit": "audit.json",
    "alerts": "alerts.jsonl",
    "tokens": "tokens.csv",
    "receipts": "receipts.csv",
    "keyring": "keyring.json",
    "mappings": "mappings.json",
    "terms": "vocabularies.json",
    "model": "data-model.json",
    "software": "software.json",
}

ITEMS: tuple[Item, ...] = (
    _item("6.1", "数据战略规划", "Strategy planning"),
    _item("6.2", "数据战略实施", "Strategy implementation", kpi="what was published and used in the period"),
    _item("6.3", "数据战略评估", "Strategy evaluation", kpi="numbers to hold against the plan"),
    _item("7.1", "数据治理组织", "Governance organisation", settings="organisation and contact of the node"),
    _item("7.2", "数据制度建设", "Rules", settings="limits, quotas and alert rules in force"),
    _item("7.3", "数据治理沟通", "Communication", events="reasons of every change, as told to users"),
    _item("8.1", "数据模型", "Data model", model="properties, units and kinds of the data"),
    _item("8.2", "数据分布", "Data distribution", catalogue="which dataset, version and size is held"),
    _item(
        "8.3",
        "数据集成与共享",
        "Integration and sharing",
        receipts="what receivers took or refused",
        events="the feed that receivers follow",
    ),
    _item(
        "8.4",
        "元数据管理",
        "Metadata",
        catalogue="metadata of all datasets",
        mappings="tables to other standards",
    ),
    _item("9.1", "数据分析", "Data analysis", kpi="analysis of use and quality"),
    _item(
        "9.2", "数据开放共享", "Open sharing", catalogue="tier and licence of all datasets", kpi="use by tier"
    ),
    _item("9.3", "数据服务", "Data services", kpi="requests by door, uptime"),
    _item(
        "10.1", "数据安全策略", "Security policy", settings="limits and alert rules", terms="grades and tiers"
    ),
    _item(
        "10.2",
        "数据安全管理",
        "Security management",
        tokens="who may see what, until when",
        catalogue="grade of all datasets",
        events="regrades and withdrawals",
        keyring="signing keys and their rotations",
    ),
    _item(
        "10.3", "数据安全审计", "Security audit", audit="the audit is whole; its head", alerts="alerts raised"
    ),
    _item("11.1", "数据质量需求", "Quality requirements", model="units and shapes asked of every property"),
    _item("11.2", "数据质量检查", "Quality checks", quality="entries and failures of every version"),
    _item("11.3", "数据质量分析", "Quality analysis", quality="converged fraction of every version"),
    _item("11.4", "数据质量提升", "Quality improvement", events="revisions and their reasons"),
    _item("12.1", "业务术语", "Business terms", terms="controlled vocabularies"),
    _item("12.2", "参考数据和主数据", "Reference and master data", terms="controlled vocabularies"),
    _item(
        "12.3",
        "数据元",
        "Data elements",
        model="names, kinds and units",
        mappings="data elements of other standards",
    ),
    _item("12.4", "指标数据", "Indicators", kpi="the indicators and their values"),
    _item("13.1", "数据需求", "Data requirements"),
    _item("13.2", "数据设计和开发", "Design and development", software="what made the data, with versions"),
    _item("13.3", "数据运维", "Operation", kpi="uptime", audit="starts and stops", alerts="alerts raised"),
    _item("13.4", "数据退役", "Retirement", events="withdrawals: tombstones with reasons"),
)
