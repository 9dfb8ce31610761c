"""Twenty of RobustBench's CIFAR-10 Linf records, in its shape: keys, types and odd spellings are upstream's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ARXIV = "https://arxiv.org/abs/"
COLUMNS = ("id", "link", "name", "authors", "venue", "architecture", "clean_acc", "reported", "autoattack_acc", "more")
ROWS: tuple[tuple[Any, ...], ...] = (
    ("Amini2024MeanSparse_S-WRN-94-16", f"{ARXIV}2406.05927",
     "MeanSparse: Post-Training Robustness Enhancement Through Mean-Centered Feature Sparsification",
     "Sajjad Amini, Mohammadreza Teymoorianfard, Shiqing Ma, Amir Houmansadr", "arXiv, Jun 2024",
     "MeanSparse WideResNet-94-16", "93.60", "75.28", "75.28",
     {"external": "73.10", "unreliable": False,
      "footnote": "It adds the MeanSparse operator to the adversarially trained models."}),
    ("Bartoldson2024Adversarial_WRN-94-16", f"{ARXIV}2404.09349",
     "Adversarial Robustness Limits via Scaling-Law and Human-Alignment Studies",
     "Brian Bartoldson, James Diffenderfer, Konstantinos Parasyris, Bhavya Kailkhura", "ICML 2024",
     "WideResNet-94-16", "93.68", "73.71", "73.71",
     {"footnote": "It uses additional 500M synthetic images in training.", "unreliable": False}),
    ("Peng2023Robust", f"{ARXIV}2308.16258",
     "Robust Principles: Architectural Design Principles for Adversarially Robust CNNs",
     "ShengYun Peng, Weilin Xu, Cory Cornelius, Matthew Hull, Kevin Li, Rahul Duggal, Mansi Phute, Jason Martin, and "
     "Duen Horng Chau", "BMVC 2023", "RaWideResNet-70-16", "93.27", "71.07", "71.07",
     {"footnote": "It uses additional 50M synthetic images in training.", "unreliable": False}),
    ("Bai2024MixedNUTS", f"{ARXIV}2402.02263",
     "MixedNUTS: Training-Free Accuracy-Robustness Balance via Nonlinearly Mixed Classifiers",
     "Yatong Bai, Mo Zhou, Vishal M. Patel, Somayeh Sojoudi", "arXiv, Feb 2024", "ResNet-152 + WideResNet-70-16",
     "95.19", "69.71", "70.08",
     {"external": "69.71", "unreliable": False, "additional_data": True, "number_forward_passes": 2,
      "footnote": "It uses an ensemble of networks. The robust base classifier uses 50M synthetic images. 69.71% "
      "robust accuracy is due to the original evaluation (Adaptive AutoAttack)"}),
    ("Amini2024MeanSparse_Ra_WRN_70_16", f"{ARXIV}2406.05927",
     "MeanSparse: Post-Training Robustness Enhancement Through Mean-Centered Feature Sparsification",
     "Sajjad Amini, Mohammadreza Teymoorianfard, Shiqing Ma, Amir Houmansadr", "arXiv, Jun 2024",
     "MeanSparse RaWideResNet-70-16", "93.24", "72.08", "72.08",
     {"external": "68.94", "unreliable": False, "additional_data": True,
      "footnote": "It adds the MeanSparse operator to the adversarially trained model Peng2023Robust. 68.94% robust "
      "accuracy is due to APGD (both versions) with BPDA."}),
    ("Cui2023Decoupled_WRN-28-10", f"{ARXIV}2305.13948", "Decoupled Kullback-Leibler Divergence Loss",
     "Jiequan Cui, Zhuotao Tian, Zhisheng Zhong, Xiaojuan Qi, Bei Yu, Hanwang Zhang", "NeurIPS 2024",
     "WideResNet-28-10", "92.16", "67.73", "67.73",
     {"unreliable": False, "footnote": "It uses additional 20M synthetic images in training."}),
    ("Wang2023Better_WRN-28-10", f"{ARXIV}2302.04638", "Better Diffusion Models Further Improve Adversarial Training",
     "Zekai Wang, Tianyu Pang, Chao Du, Min Lin, Weiwei Liu, Shuicheng Yan", "ICML 2023", "WideResNet-28-10",
     "92.44", "67.31", "67.31",
     {"footnote": "It uses additional 20M synthetic images in training.", "unreliable": False}),
    ("Rebuffi2021Fixing_70_16_cutmix_extra", f"{ARXIV}2103.01946",
     "Fixing Data Augmentation to Improve Adversarial Robustness",
     "Sylvestre-Alvise Rebuffi, Sven Gowal, Dan A. Calian, Florian Stimberg, Olivia Wiles, Timothy Mann",
     "arXiv, Mar 2021", "WideResNet-70-16", "92.23", "66.56", "66.58",
     {"external": "66.56", "additional_data": True,
      "footnote": "66.56% robust accuracy is due to the original evaluation (AutoAttack + MultiTargeted)"}),
    ("Kang2021Stable", f"{ARXIV}2110.12976",
     "Stable Neural ODE with Lyapunov-Stable Equilibrium Points for Defending Against Adversarial Attacks",
     "Qiyu Kang, Yang Song, Qinxu Ding, Wee Peng Tay", "NeurIPS 2021", "WideResNet-70-16, Neural ODE block",
     "93.73", "71.28", "71.28",
     {"external": "64.20", "unreliable": True, "additional_data": True,
      "footnote": "It is based on the model from Rebuffi et al. (Rebuffi2021Fixing_70_16_cutmix_extra). 64.20% robust "
      "accuracy is due to AutoAttack plus transfer APGD from the Rebuffi et al.'s model"}),
    ("Gowal2020Uncovering_28_10_extra", f"{ARXIV}2010.03593",
     "Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial Examples",
     "Sven Gowal, Chongli Qin, Jonathan Uesato, Timothy Mann, Pushmeet Kohli", "arXiv, Oct 2020",
     "WideResNet-28-10", "89.48", "62.76", "62.80", {"external": "62.76", "additional_data": True}),
    ("Carmon2019Unlabeled", f"{ARXIV}1905.13736", "Unlabeled Data Improves Adversarial Robustness",
     "Yair Carmon, Aditi Raghunathan, Ludwig Schmidt, Percy Liang, John C. Duchi", "NeurIPS 2019",
     "WideResNet-28-10", "89.69", "62.5", "59.53", {"additional_data": True}),
    ("Debenedetti2022Light_XCiT-S12", f"{ARXIV}2209.07399", "A Light Recipe to Train Robust Vision Transformers",
     "Edoardo Debenedetti, Vikash Sehwag, Prateek Mittal", "arXiv, Sep 2022", "XCiT-S12",
     "90.06", "56.14", "56.14", {"additional_data": True}),
    ("Pang2020Boosting", f"{ARXIV}2002.08619", "Boosting Adversarial Training with Hypersphere Embedding",
     "Tianyu Pang, Xiao Yang, Yinpeng Dong, Kun Xu, Hang Su, Jun Zhu", "NeurIPS 2020", "WideResNet-34-20",
     "85.14", "53.74", "53.74", {}),
    ("Zhang2020Attacks", f"{ARXIV}2002.11242",
     "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger",
     "Jingfeng Zhang, Xilie Xu, Bo Han, Gang Niu, Lizhen Cui, Masashi Sugiyama, Mohan Kankanhalli", "ICML 2020",
     "WideResNet-34-10", "84.52", "54.36", "53.51", {}),
    ("Rice2020Overfitting", f"{ARXIV}2002.11569", "Overfitting in adversarially robust deep learning",
     "Leslie Rice, Eric Wong, J. Zico Kolter", "ICML 2020", "WideResNet-34-20", "85.34", "58", "53.42", {}),
    ("Zhang2019Theoretically", f"{ARXIV}1901.08573",
     "Theoretically Principled Trade-off between Robustness and Accuracy",
     "Hongyang Zhang, Yaodong Yu, Jiantao Jiao, Eric P. Xing, Laurent El Ghaoui, Michael I. Jordan", "ICML 2019",
     "WideResNet-34-10", "84.92", "56.43", "53.08",
     {"eps": "0.031", "footnote": "Uses \\(\\ell_{\\infty} \\) = 0.031 \u2248 7.9/255 instead of 8/255."}),
    ("Addepalli2022Efficient_RN18", f"{ARXIV}2210.15318",
     "Efficient and Effective Augmentation Strategy for Adversarial Training",
     "Sravanti Addepalli, Samyak Jain, Venkatesh Babu Radhakrishnan", "NeurIPS 2022", "ResNet-18",
     "85.71", "52.50", "52.48", {"unreliable": False}),
    ("Chen2020Adversarial", f"{ARXIV}2003.12862",
     "Adversarial Robustness: From Self-Supervised Pre-Training to Fine-Tuning",
     "Tianlong Chen, Sijia Liu, Shiyu Chang, Yu Cheng, Lisa Amini, Zhangyang Wang", "CVPR 2020", "ResNet-50",
     "86.04", "54.64", "51.56", {"number_forward_passes": 3, "footnote": "Uses ensembles of 3 models."}),
    ("Engstrom2019Robustness", "https://github.com/MadryLab/robustness", "Robustness library",
     "Logan Engstrom, Andrew Ilyas, Shibani Santurkar, Dimitris Tsipras", "GitHub,<br>Oct 2019", "ResNet-50",
     "87.03", "53.29", "49.25", {}),
    ("Standard", "https://github.com/RobustBench/robustbench/", "Standardly trained model", "", "N/A",
     "WideResNet-28-10", "94.78", "0.0", "0.0", {}),
)  # fmt: skip


def upstream_records() -> dict[str, dict[str, Any]]:
    """The records by model id."""
    common = {"additional_data": False, "number_forward_passes": 1, "dataset": "cifar10", "eps": "8/255"}
    *_, more = COLUMNS
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    return {row["id"]: {k: v for k, v in (common | row | row[more]).items() if k not in ("id", more)} for row in rows}


def write_upstream(root: Path) -> dict[str, dict[str, Any]]:
    """The records, written where RobustBench looks for them below ``root``."""
    folder = root / "model_info" / "cifar10" / "Linf"
    folder.mkdir(parents=True, exist_ok=True)
    found = upstream_records()
    for name, record in found.items():
        (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    return found
